"""Cells round scattered points (a Voronoi diagram): nets of cracks, the grain of leather."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.synthetic.noise import Field


def cell_borders(x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator) -> Field:
    """How much farther the second nearest of a jittered lattice's points is than the nearest, halved."""
    table = rng.uniform(0.05, 0.95, (64, 64, 2)).astype(np.float32)
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    nearest = np.full(x.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            point = table[(row + step_y) % 64, (column + step_x) % 64]
            distance = np.hypot(column + step_x + point[..., 0] - x, row + step_y + point[..., 1] - y)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
    return np.asarray((second - nearest) / 2, dtype=np.float32)
