"""From a published version to engines that the line may run: built, proved on the plant's own pictures, activated.

``candidate`` reads a version and makes its network, ``evidence`` measures the candidate beside the trained model
and the current engine, ``gate_report`` decides, ``pipeline`` does one after the other.
"""
