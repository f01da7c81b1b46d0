"""Report of a run: one HTML page, the same as JSON, TensorBoard's events."""
