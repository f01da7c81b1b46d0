"""Federated rounds of a run: from the run folder to a backend's job, and the head that a round made.

The server's store and each plant's own folder lie in the run folder, so whoever goes on finds both.
"""

from __future__ import annotations

import numpy as np
import torch

from fedclient.worker.training.plant_state import PlantState
from fedserver.rounds.events import OnEvent, RunFinished
from fedserver.rounds.settings import RoundSettings
from fedserver.storage.run_store import RunStore
from fedsim.backends import SimulationJob, run_backend
from fedsim.config import SimulationSettings
from fedsim.run_folder import Prepared, RunFolder
from fedspect.model import head_state, load_base
from fedspect.update.schema import Arrays, Schema, is_statistic

WORKERS = "fedsim.simulated_plant:make_worker"
GPU_SHARE = 0.25  # of a GPU for each plant, with Ray


def federate(
    folder: RunFolder, prepared: Prepared, settings: SimulationSettings, on_event: OnEvent
) -> RunFinished:
    """Go through the rounds that are still to come.

    Raises:
        QuorumError: too many plants failed.
        InterruptedRunError: it was interrupted; every closed round is on disk.

    """
    return run_backend(settings.federation.backend, job_of(folder, prepared, settings), on_event)


def job_of(folder: RunFolder, prepared: Prepared, settings: SimulationSettings) -> SimulationJob:
    """What a backend needs to know."""
    federation = settings.federation
    on_gpu = settings.training.device != "cpu" and torch.cuda.is_available()
    return SimulationJob(
        run_folder=folder.path,
        plants=tuple(prepared.plants),
        classes=tuple(prepared.classes),
        base_hash=prepared.base_hash,
        head=first_head(folder, prepared, settings),
        worker_factory=WORKERS,
        rounds=RoundSettings(
            rounds=federation.rounds,
            local_epochs=federation.local_epochs,
            batch_norm=federation.batch_norm,
            encoding=federation.encoding,
            encoding_down=federation.encoding,
            quorum=len(prepared.plants) // 2 + 1,
            early_stop=federation.early_stop,
            early_stop_metric=federation.early_stop_metric,
        ),
        strategy=federation.strategy,
        strategy_options=federation.strategy_options,
        seed=settings.seed,
        closed_form=federation.closed_form if prepared.closed_form else None,
        cpus_per_plant=float(settings.training.threads or 1),
        gpus_per_plant=GPU_SHARE if on_gpu else 0.0,
        shared=() if settings.data.folder is None else (settings.data.folder,),
    )


def first_head(folder: RunFolder, prepared: Prepared, settings: SimulationSettings) -> Arrays:
    """The head that the run begins with: the base's, with a new classifier if the classes are others."""
    network = load_base(folder.base).starting_network(
        prepared.classes,
        seed=settings.seed,
        freeze_levels=prepared.freeze_levels,
        closed_form=prepared.closed_form,
    )
    state = head_state(network, prepared.freeze_levels)
    return {name: value.numpy().astype(np.float32) for name, value in state.items()}


def head_after(
    folder: RunFolder, prepared: Prepared, settings: SimulationSettings, round_number: int
) -> Arrays:
    """The head that a round made.

    With FedBN running statistics never reach the server: here, where all plants are at hand, the head gets
    the plain mean of the plants' own ones, which is what a plant that joins later could best begin with.

    Raises:
        WorkspaceError: the round's head is no longer kept.

    """
    head = RunStore(folder.rounds).head(round_number)
    if settings.federation.batch_norm == "average":
        return head
    return {**head, **_mean_statistics(folder, prepared, Schema.of(head), round_number)}


def _mean_statistics(folder: RunFolder, prepared: Prepared, schema: Schema, round_number: int) -> Arrays:
    run_id = RunStore(folder.rounds).facts.run_id
    found: list[Arrays] = []
    for plant in prepared.plants:
        state = PlantState(folder.work(plant), base_hash=prepared.base_hash)
        kept = state.before(run_id, round_number + 1, schema).statistics
        if kept:
            found.append(kept)
    names = sorted({name for each in found for name in each if is_statistic(name)})
    return {name: _mean([each[name] for each in found]) for name in names}


def _mean(values: list[np.ndarray]) -> np.ndarray:
    return np.asarray(np.mean(np.stack(values), axis=0, dtype=np.float64), dtype=np.float32)
