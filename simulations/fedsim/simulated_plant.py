"""A simulated plant: the same worker that runs in a real one, put together from the run folder.

A backend builds it wherever the plant's work happens, in this process or in one of Ray's, from two words: the
run folder and the plant's name. Whatever a plant remembers between rounds lies in its own folder below.
"""

from __future__ import annotations

from pathlib import Path

from fedclient.worker.training.plant_worker import NodeCalls, PlantWorker
from fedsim.prepare import EVALUATION, TRAINING, plant_pictures
from fedsim.run_folder import RunFolder
from fedspect.errors import WorkspaceError
from fedspect.model import load_base


def make_worker(run_folder: Path | str, plant: str) -> NodeCalls:
    """The worker of ``plant`` in a run that was prepared, as a node asks it.

    Raises:
        WorkspaceError: the run was not prepared, or has no such plant.

    """
    folder = RunFolder(Path(run_folder))
    prepared = folder.read_prepared()
    if prepared is None or plant not in prepared.plants:
        raise WorkspaceError(
            "there is no such plant in this run",
            seen=f"{plant} in {folder.path}",
            accepted=", ".join(prepared.plants) if prepared else "a run that was prepared",
        )
    settings = folder.settings()
    pictures = plant_pictures(folder, prepared, plant)
    worker = PlantWorker(
        plant,
        load_base(folder.base),
        prepared.classes,
        pictures[TRAINING],
        pictures[EVALUATION],
        settings.training,
        freeze_levels=prepared.freeze_levels,
        state_folder=folder.work(plant),
        cache_folder=settings.cache_folder or folder.cache,
        seed=settings.seed,
        closed_form=prepared.closed_form,
        good_classes=settings.data.good_classes,
        threshold=settings.data.threshold,
        bit_depth=prepared.bit_depth,
    )
    return NodeCalls(worker)
