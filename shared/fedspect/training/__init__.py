"""Fine-tuning the unfrozen levels, the frozen-feature cache, and metrics."""
