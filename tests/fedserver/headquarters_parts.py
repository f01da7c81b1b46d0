"""A workspace with a tiny base model and a run with made-up rounds, without a plant or a server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedserver.rounds.history import Evaluation, PlantResult, RoundRecord
from fedserver.storage.run_state import ClientRecord, RunState
from fedserver.storage.run_store import RunStore
from fedserver.storage.runs import prepare_run
from fedserver.workspace import Workspace, create
from fedspect.model import build_network
from fedspect.model.base import save_base

CLASSES = ("pit", "scratch")


def made_workspace(folder: Path) -> Workspace:
    """A workspace on a base model that takes milliseconds."""
    network = build_network("plain-cnn", len(CLASSES), channels=1, seed=1)
    save_base(folder / "base", network, classes=CLASSES, input_size=64, mean=[0.5], std=[0.25], provenance={})
    create(folder / "hq", ["localhost"], name="steel", classes=list(CLASSES))
    workspace = Workspace.open(folder / "hq")
    edit(workspace, base="../base", fleet_port=0, enrolment_port=0)
    return workspace


def edit(workspace: Workspace, **settings: Any) -> None:
    """Edit fedserver.toml, one value a line."""
    text = workspace.settings_path.read_text()
    for key, value in settings.items():
        written = f'"{value}"' if isinstance(value, str) else str(value).lower()
        text, changed = re.subn(rf"(?m)^(# )?{key} =.*$", f"{key} = {written}", text, count=1)
        assert changed == 1, key
    workspace.settings_path.write_text(text)


def begun_run(workspace: Workspace, **more: Any) -> RunStore:
    return prepare_run(workspace.runs, workspace.settings(), workspace.base(), **more)


def result(plant: str, accuracy: float, **more: Any) -> PlantResult:
    given = {
        "plant": plant,
        "num_examples": 30,
        "counts": {"pit": 10, "scratch": 20},
        "weight": 0.5,
        "evaluated": 10,
        "metrics": {"accuracy": accuracy, "loss": 1.0 - accuracy},
        "confusion": [[5, 0], [1, 4]],
        "train_loss": 0.5,
        "seconds": {"total": 2.0},
        "remarks": [],
        "bytes_up": 5_000,
        "bytes_down": 4_000,
        **more,
    }
    return PlantResult(**given)


def close_round(
    store: RunStore, *accuracies: float, client_records: Mapping[str, ClientRecord] = {}, **more: Any
) -> RunState:
    """A round in which every plant found the model that it received to be so good."""
    state = store.latest()
    number = state.round + 1
    target = {name: values + np.float32(0.01) for name, values in state.served.head.items()}
    served = state.served.advance(target, encoding="float32")
    results = [result(f"plant-{place}", each) for place, each in enumerate(accuracies, 1)]
    given = {
        "round": number,
        "version": served.version,
        "parent": state.served.version,
        "started": "2026-01-01T00:00:00Z",
        "seconds": 3.0,
        "plants": results,
        "refused": [],
        "lost": {},
        "evaluation": Evaluation.of(number - 1, state.served.version, results),
        "train_loss": 0.5,
        "bytes_up": 5_000 * len(results),
        "bytes_down": 4_000 * len(results),
        "notes": [],
        **more,
    }
    closed = RunState(number, served, plants=client_records)
    store.close_round(closed, RoundRecord(**given))
    return closed


def finish(store: RunStore, *accuracies: float) -> None:
    """The closing evaluation of the last round."""
    last = store.latest()
    results = [result(f"plant-{place}", each) for place, each in enumerate(accuracies, 1)]
    evaluation = Evaluation.of(last.round, last.served.version, results)
    assert evaluation is not None
    store.close_run(last.round, evaluation)


def finished_run(workspace: Workspace, rounds: int = 2) -> RunStore:
    """A run of two plants that get better from round to round."""
    store = begun_run(workspace, rounds=rounds)
    for number in range(rounds):
        close_round(store, 0.5 + 0.1 * number, 0.6 + 0.1 * number)
    finish(store, 0.5 + 0.1 * rounds, 0.6 + 0.1 * rounds)
    return store
