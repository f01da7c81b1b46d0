"""The networks: CondenseNetV2 with its learned groups, condensing, levels, base models, and peers."""
