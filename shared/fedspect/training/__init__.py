"""Fine-tuning of the unfrozen stages, the frozen-feature cache, and metrics."""
