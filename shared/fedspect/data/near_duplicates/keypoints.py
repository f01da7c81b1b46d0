"""Keypoints and descriptors: what stays the same when one piece of surface is cut or photographed twice.

Light and exposure go, structure stays: a picture is band-passed (what is finer than 3 and coarser than 15
pixels goes) and divided by its own contrast around each pixel. Its *keypoints* are the strongest points of
their neighbourhood, each with a description of the 16 x 16 pixels around it. They move with the surface, so
two crops of one strip share those of their overlap, however small it is and wherever it lies.

H, W height and width; L keypoints; D = 64 values of a description.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEYPOINTS_VERSION = 1
"""Changes whenever the same picture would get other keypoints."""
FINE, COARSE = 1, 7
"""Radii in pixels of the two means whose difference is the band."""
CONTRAST_FLOOR = 1.0
"""Grey levels squared: what counts as no structure at all, so that flat areas stay flat."""
SPACING = 8
"""No two keypoints are nearer than this, in pixels."""
REACH = 8
"""Half the side of the square that describes a keypoint."""
DESCRIPTION_LENGTH = REACH * REACH
MOST_KEYPOINTS = 1024
STRAIGHT = 0.12
"""A keypoint with less than this share of its structure in the weaker direction lies on a line."""
STEPS = 24.0
"""Steps of the whole numbers that a relief is kept in, per unit of local contrast."""


@dataclass(frozen=True)
class Keypoints:
    """``places`` int16 (L, 2), row and column; ``descriptions`` int8 (L, D), each of length 127."""

    places: np.ndarray
    descriptions: np.ndarray


def relief(pixels: np.ndarray) -> np.ndarray:
    """Structure without light: int8 (H, W), in STEPS per unit of local contrast, from grey uint8 (H, W)."""
    fine = mean_around(pixels.astype(np.float32), FINE)
    band = fine - mean_around(fine, COARSE)
    contrast = np.sqrt(mean_around(band * band, COARSE) + np.float32(CONTRAST_FLOOR))
    steps = np.rint(band / contrast * np.float32(STEPS))
    return np.asarray(np.clip(steps, -127, 127), dtype=np.int8)


def find_keypoints(surface: np.ndarray) -> Keypoints:
    """The keypoints of a relief (H, W) as it is, and of the same at half its size, where noise counts less."""
    height, width = surface.shape[0] // 2 * 2, surface.shape[1] // 2 * 2
    half = (
        surface[:height, :width].astype(np.float32).reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    )
    fine, coarse = _keypoints(surface), _keypoints(np.rint(half).astype(np.int8))
    return Keypoints(
        np.concatenate([fine.places, coarse.places * 2]),
        np.concatenate([fine.descriptions, coarse.descriptions]),
    )


def _keypoints(surface: np.ndarray) -> Keypoints:
    """Keypoints at one scale, strongest first."""
    strength = np.abs(surface.astype(np.int16))
    height, width = strength.shape
    none = Keypoints(np.zeros((0, 2), np.int16), np.zeros((0, DESCRIPTION_LENGTH), np.int8))
    if min(height, width) <= 2 * REACH:
        return none
    peaks = (strength == highest_around(strength, SPACING)) & (strength > 0)
    inner = np.zeros_like(peaks)
    inner[REACH : height - REACH + 1, REACH : width - REACH + 1] = True
    rows, columns = np.nonzero(peaks & inner)
    order = np.argsort(-strength[rows, columns], kind="stable")[:MOST_KEYPOINTS]
    if not len(order):
        return none
    rows, columns = rows[order], columns[order]
    windows = np.lib.stride_tricks.sliding_window_view(surface, (2 * REACH, 2 * REACH))
    around = windows[rows - REACH, columns - REACH].astype(np.float32)
    cells = around.reshape(len(order), REACH, 2, REACH, 2).mean(axis=(2, 4))
    placed = two_dimensional(cells)
    rows, columns, flat = rows[placed], columns[placed], cells[placed].reshape(-1, DESCRIPTION_LENGTH)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.sqrt((flat * flat).sum(axis=1, keepdims=True))
    described = np.rint(flat / np.maximum(length, 1e-6) * 127).astype(np.int8)
    return Keypoints(np.stack([rows, columns], axis=1).astype(np.int16), described)


def two_dimensional(cells: np.ndarray) -> np.ndarray:
    """Which squares of cells (L, n, n) have structure in both directions, bool (L,).

    A point on a straight edge or a scratch could be anywhere along it. The ratio of the structure tensor's
    eigenvalues (Harris and Stephens 1988) tells such points from those that have one place.
    """
    down = cells[:, 2:, 1:-1] - cells[:, :-2, 1:-1]
    across = cells[:, 1:-1, 2:] - cells[:, 1:-1, :-2]
    a, b = (down * down).sum(axis=(1, 2)), (across * across).sum(axis=(1, 2))
    c = (down * across).sum(axis=(1, 2))
    spread = np.sqrt((a - b) ** 2 + 4 * c * c)
    return np.asarray(a + b - spread > STRAIGHT * (a + b + spread))


def mean_around(values: np.ndarray, radius: int) -> np.ndarray:
    """Mean over the square of side 2 * radius + 1, cut off at the border; float32 (H, W)."""
    for axis in (0, 1):
        size = values.shape[axis]
        sums = np.zeros([n + (axis == i) for i, n in enumerate(values.shape)], np.float64)
        np.cumsum(values, axis=axis, out=sums[1:] if axis == 0 else sums[:, 1:])
        upper = np.minimum(np.arange(size) + radius + 1, size)
        lower = np.maximum(np.arange(size) - radius, 0)
        count = (upper - lower).reshape((-1, 1) if axis == 0 else (1, -1))
        values = ((sums.take(upper, axis) - sums.take(lower, axis)) / count).astype(np.float32)
    return values


def highest_around(values: np.ndarray, radius: int) -> np.ndarray:
    """Largest value over the square of side 2 * radius + 1, cut off at the border."""
    for axis in (0, 1):
        result = values.copy()
        for shift in range(1, radius + 1):
            ahead = [slice(None), slice(None)]
            behind = [slice(None), slice(None)]
            ahead[axis], behind[axis] = slice(shift, None), slice(None, -shift)
            np.maximum(result[tuple(behind)], values[tuple(ahead)], out=result[tuple(behind)])
            np.maximum(result[tuple(ahead)], values[tuple(behind)], out=result[tuple(ahead)])
        values = result
    return values
