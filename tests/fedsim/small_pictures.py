"""Small pictures that tests of fedsim make for themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

import numpy as np
from PIL import Image

CLASSES = ("dark", "light", "striped")


def draw(path: Path, label: str, number: int, size: int = 64) -> None:
    """One picture that anything that learns at all can tell from those of another class."""
    chance = np.random.default_rng([number, *label.encode()])
    base = {"dark": 60.0, "light": 190.0}.get(label, 125.0)
    pixels = np.full((size, size), base) + chance.normal(0, 12, (size, size))
    if label == "striped":
        pixels += 60 * np.sign(np.sin(np.arange(size) * 0.7 + chance.uniform(0, 6)))[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def folder_of(root: Path, per_class: int = 10, classes: Sequence[str] = CLASSES, size: int = 64) -> Path:
    """A folder per class."""
    for label in classes:
        for number in range(per_class):
            draw(root / label / f"{label}_{number}.png", label, number, size)
    return root


def manifest_of(root: Path, path: Path, rows: Sequence[tuple], columns: Sequence[str]) -> Path:
    """A CSV list; ``rows`` hold the values of path, class and the further ``columns``."""
    lines = [",".join(("path", "class", *columns)), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def names(root: Path, label: Optional[str] = None) -> list:
    """The names of the pictures below a folder, as a list of pictures has them."""
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.png")
        if label is None or path.parent.name == label
    )
