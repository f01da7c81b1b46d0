"""Jobs for tests of engines; the makers of workers are found by name, in Ray's processes too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import linear_plants
from fedserver.rounds.settings import RoundSettings
from fedserver.storage.run_store import RunStore
from fedsim.backends import SimulationJob
from fedspect.errors import NoPicturesError
from linear_plants import LinearPlant


def linear_job(folder: Path, *, quorum: int = 3, **more: Any) -> SimulationJob:
    """Three linear plants for three rounds."""
    facts: dict[str, Any] = {
        "run_folder": folder,
        "plants": ("plant-1", "plant-2", "plant-3"),
        "classes": linear_plants.CLASSES,
        "base_hash": linear_plants.BASE_HASH,
        "head": linear_plants.start_head(),
        "worker_factory": "linear_plants:make_worker",
        "rounds": RoundSettings(rounds=3, quorum=quorum, encoding="int8"),
        "seed": 5,
    }
    return SimulationJob(**{**facts, **more})


def head_of(folder: Path) -> str:
    """The version of the last head: equal exactly when every bit is."""
    return RunStore(folder / "rounds").latest().served.version


def make_worker_without_pictures(run_folder: Path, plant: str) -> LinearPlant:
    """As ``linear_plants.make_worker``, but plant-2 has nothing to work on."""
    if plant == "plant-2":
        raise NoPicturesError("plant-2 has no pictures")
    return linear_plants.make_worker(run_folder, plant)


def make_worker_that_names_its_node(run_folder: Path, plant: str) -> LinearPlant:
    """As ``linear_plants.make_worker``; leaves a file called after Ray's node."""
    import ray

    (run_folder / "nodes").mkdir(exist_ok=True)
    (run_folder / "nodes" / ray.get_runtime_context().get_node_id()).touch()
    return linear_plants.make_worker(run_folder, plant)
