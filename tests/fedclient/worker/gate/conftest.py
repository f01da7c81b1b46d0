"""A plant's home, and versions as headquarters publishes them: a head that was trained, and what can be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable, List, Mapping

import numpy as np
import pytest
import safetensors.numpy

from fedclient.worker.gate.pipeline import Deployer
from fedclient.worker.settings import WorkerSettings
from fedclient.worker.training.head import head_of
from fedclient.worker.training.setup import Site
from fedspect.data.pictures import CheckedPicture
from fedspect.files import write_bytes, write_json, write_text
from fedspect.model.base import BaseNetwork, save_base
from fedspect.model.levels import freeze
from fedspect.protocol.versions import VersionCard
from fedspect.training.settings import TrainingSettings
from fedspect.training.trainer import Trainer
from fedspect.update.schema import Arrays, version_of

CLASSES = ("plain", "striped")
SETTINGS = TrainingSettings(threads=1, batch_size=8, device="cpu", learning_rate=0.01)

Publish = Callable[..., Path]


@pytest.fixture(scope="session")
def trained_head(base: BaseNetwork, pictures: List[CheckedPicture], cache: Path) -> Arrays:
    """A head that tells plain from striped on every picture, so that one with classes exchanged is worse on any."""
    network = base.network(CLASSES, seed=0)
    freeze(network, 8)
    trainer = Trainer(
        network,
        base.preprocessing,
        CLASSES,
        SETTINGS,
        freeze_levels=8,
        base_hash=base.content_hash,
        cache_folder=cache,
        seed=0,
    )
    best = trainer.fit(pictures, epochs=20, validation=pictures)
    assert max(epoch.validation_accuracy or 0.0 for epoch in best.epochs) == 1.0
    return head_of(network)


@pytest.fixture
def home(tmp_path: Path, base: BaseNetwork, pictures: List[CheckedPicture]) -> Path:
    """A plant that has joined, as its node leaves it."""
    folder = tmp_path / "home"
    base_folder = folder / "base"
    save_base(
        base_folder,
        base.network(CLASSES, seed=0),
        classes=CLASSES,
        input_size=64,
        mean=[0.5],
        std=[0.25],
        provenance={},
    )
    (folder / "state").mkdir()
    shutil.copytree(pictures[0].path.parent.parent, tmp_path / "pictures")
    settings = {
        "plant": "plant-1",
        "classes": list(CLASSES),
        "data": str(tmp_path / "pictures"),
        "base": str(base_folder),
        "state": str(folder / "state"),
        "cache": str(folder / "cache"),
        "training": {"threads": 1},
    }
    write_json(folder / "worker.json", settings)
    write_text(folder / "engines.toml", "[gate]\nruns = 3\nslower = 1000.0\n")
    return folder


@pytest.fixture
def deployer(home: Path) -> Deployer:
    settings = WorkerSettings.read(home / "worker.json")
    return Deployer(settings, lambda: Site(settings))


@pytest.fixture
def publish(home: Path, base: BaseNetwork) -> Publish:
    """Put a version where the node downloads it to."""

    def put(head: Mapping[str, np.ndarray], number: int = 1, **card: Any) -> Path:
        version = version_of(dict(head))
        content = {
            "number": number,
            "content_hash": version,
            "base_hash": base.content_hash,
            "architecture": "cdnv2-a",
            "classes": list(CLASSES),
            "freeze_levels": 8,
            "run": "run-1",
            "rounds": 3,
            "created": "2026-01-01T00:00:00Z",
            **card,
        }
        folder = home / "versions" / version
        write_bytes(folder / "head.safetensors", safetensors.numpy.save(dict(head)))
        write_json(folder / "card.json", VersionCard.model_validate(content).model_dump())
        return folder

    return put
