"""A plant: its node (Flower's side, no torch) and its worker (the GPU's side, no Flower)."""
