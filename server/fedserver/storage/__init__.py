"""Runs on disk: the store of rounds, what a run is, and its event log."""
