"""Headquarters: rounds, aggregation, the registry of models and enrolment."""

import os

# Flower reports its use to its makers unless told otherwise, and reads this when it is imported.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
