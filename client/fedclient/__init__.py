"""A plant: its node (Flower, no torch) and its worker (torch and the GPU, no Flower)."""
