"""Aggregation: from the plants' updates on disk to the change of the model."""
