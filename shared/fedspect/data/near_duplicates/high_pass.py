"""High-pass images for comparing pictures: a bounded number in memory, the others made again from their files."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
from PIL import Image

from fedspect.data.decode import decode_picture, read_bytes
from fedspect.data.near_duplicates.keypoints import relief
from fedspect.errors import PictureError

RELIEF_BYTES = 512 * 1024 * 1024


def reduced_relief(pixels: np.ndarray, reduction: int) -> np.ndarray:
    """The relief of grey pixels (H, W), reduced by a whole number first."""
    if reduction > 1 and min(pixels.shape) >= reduction:
        pixels = np.asarray(Image.fromarray(pixels).reduce(reduction))
    return relief(pixels)


class HighPassImages:
    """Reliefs by digest, the latest in memory up to a bound, the others made again from the file."""

    def __init__(self, reduction: int, limit_bytes: int = RELIEF_BYTES) -> None:
        self._reduction = reduction
        self._left = limit_bytes
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()

    def keep(self, digest: str, surface: np.ndarray) -> None:
        """Hold on to a relief, and let go of the ones that were not asked for longest."""
        if digest in self._kept:
            return
        self._kept[digest] = surface
        self._left -= surface.nbytes
        while self._left < 0 and len(self._kept) > 1:
            self._left += self._kept.popitem(last=False)[1].nbytes

    def get(self, digest: str, path: Path) -> np.ndarray:
        """A picture's relief; an empty one, which overlaps nothing, where the file has gone bad meanwhile."""
        if digest in self._kept:
            self._kept.move_to_end(digest)
            return self._kept[digest]
        try:
            pixels = decode_picture(read_bytes(path), path).pixels
        except PictureError:
            return np.zeros((0, 0), np.int8)
        self.keep(digest, reduced_relief(pixels, self._reduction))
        return self._kept[digest]
