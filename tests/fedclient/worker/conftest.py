"""A tiny federation to work in: two classes of 64 px pictures, a small model A, one plant."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest
from PIL import Image

from fedclient.worker.training.plant_worker import PlantWorker
from fedspect.data.inspection import inspect_pictures
from fedspect.data.pictures import CheckedPicture
from fedspect.data.sources import find_pictures
from fedspect.model.base import BaseNetwork, save_base
from fedspect.model.network import build_network
from fedspect.training.settings import TrainingSettings
from fedspect.update.encoding import encode
from fedspect.update.round_messages import RoundTask
from fedspect.update.schema import Arrays, is_statistic, version_of

CLASSES = ("plain", "striped")
SETTINGS = TrainingSettings(threads=1, batch_size=4, device="cpu")

MakeWorker = Callable[..., PlantWorker]
MakeTask = Callable[..., RoundTask]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseNetwork:
    network = build_network("cdnv2-a", len(CLASSES), channels=1, form="condensed", seed=1)
    return save_base(
        tmp_path_factory.mktemp("base"),
        network,
        classes=CLASSES,
        input_size=64,
        mean=[0.5],
        std=[0.25],
        provenance={},
    )


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> List[CheckedPicture]:
    """Eight of each class, alternating."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(8):
            image = random.normal(128, 20, (64, 64))
            if name == "striped":
                image += 60 * np.sign(np.sin(np.arange(64) / 3 + random.uniform(0, 6)))[None, :]
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
    found = inspect_pictures(find_pictures(folder)).pictures
    return sorted(found, key=lambda picture: (picture.name.split("/")[1], picture.name))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frozen features that all tests share."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def make_worker(base: BaseNetwork, pictures: List[CheckedPicture], cache: Path, tmp_path: Path) -> MakeWorker:
    """A worker as it is after its process began; the same ``state`` is the same disk."""

    def make(state: str = "state", **fields: Any) -> PlantWorker:
        given: Dict[str, Any] = {
            "name": "plant-1",
            "base": base,
            "classes": CLASSES,
            "train": pictures[:8],
            "evaluation": pictures[8:],
            "settings": SETTINGS,
            "state_folder": tmp_path / state,
            "cache_folder": cache,
        }
        return PlantWorker(**{**given, **fields})

    return make


@pytest.fixture
def copy_state(tmp_path: Path) -> Callable[[str, str], None]:
    """What a disk held at one moment, for a second life."""

    def copy(state: str, to: str) -> None:
        shutil.copytree(tmp_path / state, tmp_path / to)

    return copy


@pytest.fixture
def make_task(base: BaseNetwork) -> MakeTask:
    """A task of run-1; ``head`` is sent whole unless a payload is given."""

    def make(head: Arrays, round_number: int = 1, **fields: Any) -> RoundTask:
        if fields.get("batch_norm") == "per-plant":
            head = {name: values for name, values in head.items() if not is_statistic(name)}
        given: Dict[str, Any] = {
            "run_id": "run-1",
            "round": round_number,
            "total_rounds": 3,
            "base_hash": base.content_hash,
            "version": version_of(head),
            "payload_kind": "full",
            "payload": encode(head, encoding="float32"),
            "reply_encoding": "float32",
            "learning_rate": 0.005,
        }
        return RoundTask(**{**given, **fields})

    return make
