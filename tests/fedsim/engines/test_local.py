from pathlib import Path

import linear_plants
import numpy as np

from fedserver.events import RoundClosed, RunFinished
from fedserver.round_settings import RoundSettings
from fedserver.store import RunStore
from fedsim.engines import SimulationJob, run_engine


def job(folder: Path, **more: object) -> SimulationJob:
    facts = {
        "run_folder": folder,
        "plants": ("plant-1", "plant-2", "plant-3"),
        "classes": linear_plants.CLASSES,
        "base_hash": linear_plants.BASE_HASH,
        "head": linear_plants.start_head(),
        "worker_factory": "linear_plants:make_worker",
        "rounds": RoundSettings(rounds=3, quorum=3),
        "seed": 5,
    }
    return SimulationJob(**{**facts, **more})


def test_a_run_learns_and_tells_of_every_round(tmp_path: Path) -> None:
    events: list[object] = []
    finished = run_engine("local", job(tmp_path), events.append)
    assert isinstance(finished, RunFinished)
    for event in events:
        print(type(event).__name__, event)
    assert [e.record.round for e in events if isinstance(e, RoundClosed)] == [1, 2, 3]
