"""Site report: what a plant's pictures are like and what is wrong with them."""
