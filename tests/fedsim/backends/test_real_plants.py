"""A backend with real plants: torch, pictures and the frozen-feature cache behind the same apps."""

from __future__ import annotations

from pathlib import Path

from engine_jobs import head_of
from fedserver.rounds.events import Event, PlantReplied
from fedserver.storage.run_store import RunStore
from fedsim.backends import run_backend
from torch_plants import torch_job


def test_real_plants_train_evaluate_and_come_to_the_same_bits_twice(tmp_path: Path) -> None:
    events: list[Event] = []
    for name in ("first", "second"):
        run_backend("local", torch_job(tmp_path / name), events.append)
    assert head_of(tmp_path / "first") == head_of(tmp_path / "second")
    store = RunStore(tmp_path / "first" / "rounds")
    assert store.version(0) != store.version(1) != store.version(2)
    assert sorted(store.evaluations()) == [0, 1, 2]
    result = next(event.result for event in events if isinstance(event, PlantReplied))
    assert result.num_examples == 6 and result.evaluated == 6
    assert result.bytes_up < 0.5 * 4 * sum(values.size for values in store.head(0).values())
