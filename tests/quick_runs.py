"""Options of simulated runs that are small and repeat themselves."""

from __future__ import annotations

QUICK = ("--scratch", "--model", "plain-cnn", "--size", "64", "--plants", "2", "--partition", "iid")
"""Options of a run that takes seconds."""
CALM = ("--threads", "1", "--device", "cpu")
"""Options of a run that repeats itself bit for bit."""
