"""Simulation job: what a backend runs, and the run on disk that it makes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedserver.closed_form.settings import ClosedFormSettings
from fedserver.rounds.settings import RoundSettings
from fedserver.storage.run_store import RunFacts, RunStore
from fedspect.errors import SettingsError

GATHER = 900.0  # seconds; Ray needs ten to start, and minutes on a machine that is busy with other work


@dataclass(frozen=True)
class SimulationJob:
    """A federation on one machine, complete but for the pictures, which the workers find themselves."""

    run_folder: Path
    """What ``worker_factory`` is given; the server's store is its folder ``rounds``."""
    plants: tuple[str, ...]
    """Names, in any order."""
    classes: tuple[str, ...]
    base_hash: str
    head: Mapping[str, np.ndarray]
    """The head that the run begins with, statistics included: float32 by full name."""
    worker_factory: str
    """``module:function``, importable in any process: ``(run_folder, plant) -> WorkerPort``."""
    rounds: RoundSettings = field(default_factory=RoundSettings)
    """Deadline, waiting and the expected number of plants are the backend's own business here."""
    strategy: str = "fedavg"
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    closed_form: ClosedFormSettings | None = None
    """How the run's closed form is found; None: the run begins at ``head`` as it is."""
    threads: int = 1
    """``local``: how many plants work at once."""
    cpus_per_plant: float = 1.0
    """``ray``: processors that a plant's work occupies, which decides how many work at once."""
    gpus_per_plant: float = 0.0
    """``ray``: the share of a GPU that a plant's work occupies."""

    shared: tuple[Path, ...] = ()
    """``ray`` on a cluster: what must lie at the same place on every node, beside the run folder."""

    @property
    def store_folder(self) -> Path:
        """Where the server keeps the rounds."""
        return self.run_folder / "rounds"


def prepare_run(job: SimulationJob) -> RunStore:
    """The job's run on disk: begun now, or the one that is there, to go on with.

    Raises:
        SettingsError: the folder holds a run of another base model, strategy, seed or other classes.

    """
    facts = RunFacts(
        run_id=_run_id(job),
        base_hash=job.base_hash,
        classes=list(job.classes),
        seed=job.seed,
        strategy=job.strategy,
        strategy_options=dict(job.strategy_options),
        rounds=job.rounds.model_copy(
            update={
                "deadline": None,
                "expected_plants": len(job.plants),
                "gather": GATHER,
                "give_up": 0.0,
                "poll": min(job.rounds.poll, 0.05),
            }
        ),
        closed_form=job.closed_form,
    )
    if not RunStore.exists(job.store_folder):
        return RunStore.create(job.store_folder, facts, job.head)
    store = RunStore(job.store_folder)
    for name in ("base_hash", "classes", "seed", "strategy", "strategy_options", "closed_form"):
        before, now = getattr(store.facts, name), getattr(facts, name)
        if before != now:
            raise SettingsError(
                f"the folder holds a run with another {name}",
                seen=now,
                accepted=str(before),
                remedy="go on with the settings that it was started with, or choose another folder",
            )
    if store.facts.rounds.batch_norm != facts.rounds.batch_norm:
        raise SettingsError(
            "the folder holds a run with another batch_norm",
            seen=facts.rounds.batch_norm,
            accepted=store.facts.rounds.batch_norm,
        )
    store.change_settings(facts.rounds)
    return store


def _run_id(job: SimulationJob) -> str:
    """The same name for the same run, so that a repeated run repeats everything."""
    facts = [job.base_hash, job.classes, job.plants, job.seed, job.strategy, dict(job.strategy_options)]
    return "sim-" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8")).hexdigest()[:12]
