"""Surface pictures: finding, checking, splitting, decoding and augmenting them."""
