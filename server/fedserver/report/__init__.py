"""What an operator looks at after a run, and shows to others: a page, the same as JSON, TensorBoard's events."""
