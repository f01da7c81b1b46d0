"""Acceptance gate: from a published version to engines that the line may run, tested on the plant's own pictures.

``candidate`` reads a version and makes its network, ``evidence`` measures the candidate beside the trained model
and the current engine, ``gate_report`` decides, ``pipeline`` does one after the other.
"""
