"""Overlap detection: which pictures show the same piece of surface.

Crops of one strip, a place photographed again under other light, a copy saved anew: all of them leak from a
training side to a test side. Candidates (``candidates.py``) are confirmed by the correlation of the two
reliefs over their whole overlap. A correlation r over n independent pixels is significant by atanh(r) *
sqrt(n - 3) standard deviations (Fisher 1921); n follows from the power spectra of the two parts (Bartlett
1935), so that pictures of straight lines, which correlate wherever they are laid, need far more of an overlap
than a rough surface. Overlapping pictures form a group, and so do those that overlap through a third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from fedspect.data.near_duplicates.keypoints import Keypoints
from fedspect.data.near_duplicates.locality_hashing import find_candidates

LEAST_CORRELATION = 0.4
LEAST_SIGNIFICANCE = 8.0
"""Standard deviations. Among a million pairs chance reaches five; the rest is for structure that repeats."""
SCREEN = 0.25
"""A candidate whose every second pixel correlates less is not looked at closer."""
SMALLEST_SIDE = 6
STEPS_UP = 4
"""How many pixels a shift may be bettered by."""
WORKING_SIZE = 256
"""Pixels: larger pictures are reduced until their usual longer side is about this."""


@dataclass(frozen=True)
class Overlap:
    """Pictures ``first`` and ``second`` (by number) show one piece of surface.

    The second's pixel (row, column) is the first's (row + rows, column + columns), in pixels of the working
    size; ``share`` is the overlap's part of the smaller picture, ``correlation`` and ``significance`` as
    above.
    """

    first: int
    second: int
    rows: int
    columns: int
    share: float
    correlation: float
    significance: float


def common_reduction(sizes: Iterable[Tuple[int, int]]) -> int:
    """The whole number that all pictures are reduced by for comparing; one for all keeps crops to scale."""
    longer = sorted(max(size) for size in sizes)
    return max(1, int(longer[len(longer) // 2] / WORKING_SIZE + 0.5)) if longer else 1


def find_overlaps(
    keypoints: Sequence[Keypoints],
    relief_of: Callable[[int], np.ndarray],
    *,
    fresh: Optional[Sequence[bool]] = None,
    progress: Optional[Callable[[float], None]] = None,
) -> List[Overlap]:
    """The overlaps that hold the groups together (a pair already joined through others is not compared
    again).

    ``relief_of`` gives a picture's relief int8 (H, W); ``progress`` is told the part that is done. With
    ``fresh``, only pairs with a picture that is marked in it.
    """
    candidates = find_candidates(keypoints, fresh=fresh)
    groups = Groups(len(keypoints))
    overlaps = []
    for done, (first, second, rows, columns, _) in enumerate(candidates.tolist()):
        if progress is not None and done % 64 == 0:
            progress(done / len(candidates))
        if groups.root(first) == groups.root(second):
            continue
        found = compare(relief_of(first), relief_of(second), rows, columns)
        if found is None:
            continue
        share, correlation, significance, rows, columns = found
        if correlation >= LEAST_CORRELATION and significance >= LEAST_SIGNIFICANCE:
            overlaps.append(Overlap(first, second, rows, columns, share, correlation, significance))
            groups.join(first, second)
    return overlaps


def group_overlapping(count: int, pairs: Iterable[Tuple[int, int]]) -> List[int]:
    """The group of each of ``count`` pictures, named by its smallest number; pairs belong together."""
    groups = Groups(count)
    for first, second in pairs:
        groups.join(first, second)
    return [groups.root(number) for number in range(count)]


class Groups:
    """Sets that are joined two by two (union-find); each is named by its smallest member."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, number: int) -> int:
        """The smallest member of the set that holds a number."""
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Make one set of two."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low


def compare(
    one: np.ndarray, other: np.ndarray, rows: int, columns: int
) -> Optional[Tuple[float, float, float, int, int]]:
    """Share, correlation, significance and the best shift next to the one given; None if clearly unlike."""
    rough = _parts(one, other, rows, columns)
    if rough is None or _correlation(rough[0][::2, ::2], rough[1][::2, ::2]) < SCREEN:
        return None
    correlation, row, column = _climb(one, other, rows, columns)
    parts = _parts(one, other, row, column)
    assert parts is not None
    share = parts[0].size / min(one.size, other.size)
    freedom = max(independent_pixels(*parts) - 3.0, 0.0)
    significance = float(np.arctanh(min(correlation, 0.9999)) * np.sqrt(freedom))
    return share, correlation, significance, row, column


def _climb(one: np.ndarray, other: np.ndarray, rows: int, columns: int) -> Tuple[float, int, int]:
    """From a shift to its best neighbour, and on from there, to the shift that correlates most."""
    tried: Dict[Tuple[int, int], float] = {}
    here = (rows, columns)
    for _ in range(STEPS_UP):
        around = [(here[0] + row, here[1] + column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
        for shift in around:
            if shift not in tried:
                parts = _parts(one, other, *shift)
                tried[shift] = -1.0 if parts is None else _correlation(*parts)
        best = max(around, key=lambda shift: tried[shift])
        if best == here:
            break
        here = best
    return (tried[here], *here)


def _parts(
    one: np.ndarray, other: np.ndarray, rows: int, columns: int
) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    """What two reliefs have in common at a shift, or None where that is too little."""
    top, left = max(0, rows), max(0, columns)
    height = min(one.shape[0], other.shape[0] + rows) - top
    width = min(one.shape[1], other.shape[1] + columns) - left
    if min(height, width) < SMALLEST_SIDE:
        return None
    part = one[top : top + height, left : left + width]
    return part, other[top - rows : top - rows + height, left - columns : left - columns + width]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    a, b = _centred(one), _centred(other)
    scale = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.vdot(a, b)) / scale if scale > 0 else 0.0


def independent_pixels(one: np.ndarray, other: np.ndarray) -> float:
    """How many independent pixels two parts (h, w) are worth: h * w for white noise, few for lines."""
    a = np.abs(np.fft.fft2(_centred(one))) ** 2
    b = np.abs(np.fft.fft2(_centred(other))) ** 2
    common = float((a * b).sum())
    return float(a.sum()) * float(b.sum()) / common if common > 0 else 0.0


def _centred(part: np.ndarray) -> np.ndarray:
    values = part.astype(np.float32)
    return np.asarray(values - values.mean())
