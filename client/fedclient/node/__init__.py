"""The plant's Flower side; never imports torch and runs only installed code."""

import os

# Flower reports its use to its makers unless told otherwise, and reads this when it is imported.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
