"""Real plants for tests of engines: ``PlantWorker`` on a few small pictures and a plain network, one thread each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fedclient.worker.training.plant_worker import NodeCalls, PlantWorker
from fedserver.rounds.settings import RoundSettings
from fedsim.backends import SimulationJob
from fedspect.data.inspection import inspect_pictures
from fedspect.data.sources import find_pictures
from fedspect.model.base import load_base, save_base
from fedspect.model.levels import head_state
from fedspect.model.network import build_network
from fedspect.training.settings import TrainingSettings

CLASSES = ("plain", "striped")
FREEZE_LEVELS = 2
SETTINGS = TrainingSettings(threads=1, batch_size=4, device="cpu")


def torch_job(folder: Path, plants: int = 2) -> SimulationJob:
    """A federation of real plants; pictures and base model are drawn into the run folder."""
    names = tuple(f"plant-{number}" for number in range(1, plants + 1))
    for number, name in enumerate(names):
        _draw(folder / "pictures" / name, seed=number)
    network = build_network("plain-cnn", len(CLASSES), channels=1, seed=1)
    base = save_base(
        folder / "base", network, classes=CLASSES, input_size=64, mean=[0.5], std=[0.25], provenance={}
    )
    head = head_state(base.network(CLASSES, seed=0), FREEZE_LEVELS)
    return SimulationJob(
        run_folder=folder,
        plants=names,
        classes=CLASSES,
        base_hash=base.content_hash,
        head={name: value.numpy().astype(np.float32) for name, value in head.items()},
        worker_factory="torch_plants:make_worker",
        rounds=RoundSettings(rounds=2, quorum=plants, encoding="int8", encoding_down="float16"),
        seed=5,
    )


def make_worker(run_folder: Path, plant: str) -> NodeCalls:
    """The worker of one plant."""
    pictures = inspect_pictures(find_pictures(run_folder / "pictures" / plant)).pictures
    pictures = sorted(pictures, key=lambda picture: picture.name)
    return NodeCalls(
        PlantWorker(
            plant,
            load_base(run_folder / "base"),
            CLASSES,
            pictures[::2],
            pictures[1::2],
            SETTINGS,
            freeze_levels=FREEZE_LEVELS,
            state_folder=run_folder / "work" / plant,
            cache_folder=run_folder / "cache",
        )
    )


def _draw(folder: Path, *, seed: int, per_class: int = 6) -> None:
    """Noise with and without stripes."""
    draw = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            image = draw.normal(128, 20, (64, 64))
            if name == "striped":
                image += 60 * np.sign(np.sin(np.arange(64) / 3 + draw.uniform(0, 6)))[None, :]
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
