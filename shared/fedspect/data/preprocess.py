"""From a file to what the network sees, the same in training and on the line.

A picture is read with the base model's number of channels and the camera's bit depth, resized to a square with
Pillow's antialiased bilinear filter (all of the surface is kept, a picture that is not square is stretched), and
normalised channel by channel. No torch: the inference service uses the same few lines.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Optional, Tuple

import numpy as np
from PIL import Image

from fedspect.data.decode import decode, read_bytes
from fedspect.data.depth import DEPTHS
from fedspect.errors import SettingsError

PREPROCESSING_VERSION = 2


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every picture.

    ``size`` is the side of the square in pixels, ``channels`` 1 or 3; ``mean`` and ``std`` have one value per
    channel on a scale of 0 to 1. ``bit_depth`` is the camera's, for files of 16 bits; None: told by each picture.

    Raises:
        SettingsError: a value that cannot be used.

    """

    size: int
    channels: int
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    bit_depth: Optional[int] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if not 1 <= self.size <= 4096:
            raise SettingsError("the input size cannot be used", seen=self.size, accepted="1 to 4096 pixels")
        if self.channels not in (1, 3):
            raise SettingsError(
                "the number of channels cannot be used", seen=self.channels, accepted="1 or 3"
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise SettingsError(
                "mean and std need one value per channel",
                seen=f"{self.mean}, {self.std}",
                accepted=f"{self.channels} values each",
            )
        if self.bit_depth is not None and not DEPTHS[0] <= self.bit_depth <= DEPTHS[-1]:
            raise SettingsError(
                "the camera's bit depth cannot be used", seen=self.bit_depth, accepted="8 to 16 bits"
            )
        if not np.isfinite(self.mean).all() or not np.isfinite(self.std).all() or min(self.std) <= 0:
            raise SettingsError(
                "mean or std cannot be used", seen=f"{self.mean}, {self.std}", accepted="finite, std above 0"
            )

    def load(self, path: Path) -> np.ndarray:
        """Read and resize a picture: uint8 (C, size, size). Raises PictureError as ``read_picture``."""
        return self.read(read_bytes(path), path)

    def read(self, content: bytes, path: Path) -> np.ndarray:
        """The same of a file's bytes; ``path`` is for messages only."""
        return self.resize(decode(content, path, channels=self.channels, bit_depth=self.bit_depth))

    def of_camera(self, bit_depth: Optional[int]) -> Preprocessing:
        """The same for pictures of a camera of that depth; None: it is not known."""
        return replace(self, bit_depth=bit_depth)

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Bring uint8 pixels (H, W) or (H, W, 3) to uint8 (C, size, size)."""
        image = Image.fromarray(pixels).convert("L" if self.channels == 1 else "RGB")
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        resized = np.asarray(image).reshape(self.size, self.size, self.channels)
        return np.ascontiguousarray(resized.transpose(2, 0, 1))

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """From uint8 (..., C, size, size) to float32 of the same shape: (value / 255 - mean) / std."""
        mean = np.asarray(self.mean, dtype=np.float32)[:, None, None]
        std = np.asarray(self.std, dtype=np.float32)[:, None, None]
        return np.asarray((pixels.astype(np.float32) / np.float32(255) - mean) / std, dtype=np.float32)

    @property
    def key(self) -> str:
        """A short name that changes when anything changes that a cached feature depends on."""
        content = json.dumps([PREPROCESSING_VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]
