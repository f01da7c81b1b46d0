"""Bit depth of a camera: which bits of a 16-bit file hold the picture, and their scaling to 8.

Cameras store 10, 12 or 14 bits in files of 16. Read file by file, the depth follows the brightest pixel: a stuck
pixel makes a picture black, and a dark picture is made bright. So a camera has **one** depth: declared
(``bit_depth``), else the smallest that holds all pictures of the plant. Stuck pixels do not count: one pixel in
a thousand may be brighter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, List, Optional, Tuple

import numpy as np

DEPTHS = (8, 10, 12, 14, 16)
STUCK = 1000
"""One pixel in so many may be stuck."""
ODD = 100
"""One picture in so many may be of another depth without deciding that of all."""


@dataclass(frozen=True)
class Levels:
    """The range of values in which all but stuck pixels of one picture lie, as they are stored.

    ``depth`` is the number of bits that the format itself tells (8, or 12 of a TIFF of 12 bits); None where a file of
    16 bits does not. ``negative``: 0 is white (TIFF's photometric interpretation).
    """

    darkest: int
    brightest: int
    depth: Optional[int]
    negative: bool = False

    @property
    def needed(self) -> int:
        """The smallest depth that holds the picture."""
        return self.depth or next(bits for bits in DEPTHS if self.brightest < 1 << bits)

    def shown(self, bit_depth: Optional[int]) -> Tuple[int, int]:
        """Darkest and brightest grey level, 0 to 255, where the camera has this depth (None: not known)."""
        table = to_eight_bits(self.depth or bit_depth or self.needed, negative=self.negative)
        low, high = int(table[self.darkest]), int(table[self.brightest])
        return min(low, high), max(low, high)


def levels_of(values: np.ndarray, depth: Optional[int], *, negative: bool = False) -> Levels:
    """The levels of stored values, uint8 or uint16 of any shape."""
    below = np.cumsum(np.bincount(values.ravel()))
    stuck = values.size // STUCK
    darkest, brightest = np.searchsorted(below, (stuck, values.size - 1 - stuck), side="right")
    return Levels(int(darkest), int(brightest), depth, negative)


def common_depth(pictures: Iterable[Levels]) -> Optional[int]:
    """The depth of the camera that took these pictures; None where none of them leaves it open."""
    needed: List[int] = sorted(each.needed for each in pictures if each.depth is None)
    return needed[len(needed) - 1 - len(needed) // ODD] if needed else None


def to_eight_bits(bit_depth: int, *, negative: bool = False) -> np.ndarray:
    """The grey level, uint8, of each stored value from 0 to 65535; what is beyond the depth is white."""
    top = (1 << bit_depth) - 1
    table = (np.minimum(np.arange(1 << 16, dtype=np.uint32), top) * 255 // top).astype(np.uint8)
    return 255 - table if negative else table
