"""Review queue: pictures that the model is unsure of, kept for a person."""
