"""Small pictures of three textures, a network and a trainer, for the tests of the training room."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, List, Optional

import numpy as np
from PIL import Image

from fedspect.data.pictures import CheckedPicture, Picture
from fedspect.data.preprocess import Preprocessing
from fedspect.data.views import ViewSettings
from fedspect.model.levels import LevelledNetwork
from fedspect.model.network import build_network
from fedspect.training.settings import TrainingSettings
from fedspect.training.trainer import Trainer

CLASSES = ("fine", "coarse", "dark")
SIDE = 64
GREY = Preprocessing(SIDE, 1, (0.5,), (0.25,))


def draw(label: str, number: int) -> np.ndarray:
    """Uint8 (64, 64): fine grain, coarse grain, or coarse grain in the dark."""
    random = np.random.default_rng([CLASSES.index(label), number])
    cells = SIDE if label == "fine" else SIDE // 8
    grain = random.integers(90, 230, size=(cells, cells)).repeat(SIDE // cells, 0).repeat(SIDE // cells, 1)
    return (grain // (3 if label == "dark" else 1)).astype(np.uint8)


def make_pictures(folder: Path, per_class: int, *, first: int = 0) -> List[CheckedPicture]:
    """Draw pictures as PNG files, one folder a class."""
    pictures = []
    for number in range(first, first + per_class):
        for label in CLASSES:
            path = folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(label, number)).save(path)
            pictures.append(checked(path, label))
    return pictures


def checked(path: Path, label: Optional[str]) -> CheckedPicture:
    """A picture as the inspection would hand it on."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    name = f"{path.parent.name}/{path.name}"
    return CheckedPicture(Picture(path, name, label), digest, SIDE, SIDE, 1, 8, name)


def small_network(seed: int = 0, architecture: str = "cdnv2-a") -> LevelledNetwork:
    """A condensed network for grey pictures."""
    return build_network(architecture, len(CLASSES), channels=1, form="condensed", seed=seed)


def small_settings(**changes: Any) -> TrainingSettings:
    """Few views, small batches, one thread."""
    views = ViewSettings(**{"views_per_picture": 3, **changes.pop("views", {})})
    return TrainingSettings(**{"batch_size": 8, "device": "cpu", "views": views, **changes})


def small_trainer(
    network: Optional[LevelledNetwork] = None,
    *,
    freeze_levels: int = 8,
    folder: Optional[Path] = None,
    seed: int = 0,
    **changes: Any,
) -> Trainer:
    """A trainer of a small network."""
    return Trainer(
        network or small_network(),
        GREY,
        CLASSES,
        small_settings(**changes),
        freeze_levels=freeze_levels,
        base_hash="base",
        cache_folder=folder,
        seed=seed,
    )
