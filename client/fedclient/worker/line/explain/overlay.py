"""Heat maps as pictures: what speaks for a class, drawn over what the model saw.

Shapes: C channels, S height and width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import numpy as np
from PIL import Image

from fedspect.files import replacing


def overlay(picture: np.ndarray, heat: np.ndarray) -> Image.Image:
    """The picture, uint8 (C, S, S), with heat (S, S) of 0 to 1 over it: nothing, then yellow, then red."""
    shown = picture.transpose(1, 2, 0)
    shown = np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown
    colour = np.stack([np.full_like(heat, 255), 220 * (1 - heat), np.zeros_like(heat)], axis=2)
    strength = (0.6 * heat)[:, :, None]
    return Image.fromarray(np.rint(shown * (1 - strength) + colour * strength).astype(np.uint8))


def save_overlay(path: Path, picture: np.ndarray, heat: np.ndarray) -> None:
    """Write the overlay as PNG; raises ``StorageError``."""
    with replacing(path) as file:
        overlay(picture, heat).save(file, format="PNG")


def enlarged(map_: np.ndarray, size: int) -> np.ndarray:
    """A map of the network's last level (h, w), 0 or above, as heat (S, S) of 0 to 1."""
    top = float(map_.max())
    scaled = (map_ / top if top > 0 else map_).astype(np.float32)
    smooth = Image.fromarray(scaled).resize((size, size), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(smooth, dtype=np.float32), 0, 1)


def centre_of(heat: np.ndarray) -> Tuple[float, float]:
    """The centre of mass (row, column) of a map; its middle where it is empty."""
    total = float(heat.sum())
    rows, columns = np.indices(heat.shape)
    if total <= 0:
        return (heat.shape[0] - 1) / 2, (heat.shape[1] - 1) / 2
    return float((heat * rows).sum() / total), float((heat * columns).sum() / total)
