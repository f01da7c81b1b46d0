"""Faults use the parts of the end-to-end tests, and most of them share one running federation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "end_to_end"))

from tiny_parts import TinyFederation

PLANTS = ("good-a", "good-b", "third")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyFederation]:
    """A server and three plants; a round needs two, and closes after eight seconds with those that answered.

    For one file, because its rounds go on all the time and take processors from whatever is tested beside it.
    """
    made = TinyFederation(tmp_path_factory.mktemp("faults"), deadline=8.0, late_rounds=100)
    try:
        made.begin(*PLANTS)
        for plant in PLANTS:
            made.wait_for_event("PlantJoined", plant)
        yield made
    finally:
        made.close()


@pytest.fixture
def federation(running: TinyFederation) -> Iterator[TinyFederation]:
    """The same, well before a fault and well after it: every round once, and every step in the model."""
    running.well(PLANTS)
    yield running
    running.well(PLANTS)
    running.check_history()
