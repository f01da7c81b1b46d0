"""Local training of a plant: its pictures, its state between rounds, and the work of one round."""
