"""Occlusion sensitivity (Zeiler and Fergus, 2014): how much a class loses when a square of the picture is covered.

For graphs that have no map to weigh. Coarse, and about seventy times the work of an answer.

Shapes: C channels, S input size, K classes.
"""

from __future__ import annotations

from typing import Callable

import numpy as np

TILES = 8


def occlusion(pixels: np.ndarray, answer: Callable[[np.ndarray], np.ndarray], label: int) -> np.ndarray:
    """What a class rests on in a picture, uint8 (C, S, S): (tiles, tiles), 0 or above. ``answer``: pixels -> logits."""
    size = pixels.shape[1]
    step = max(1, size // TILES)
    corners = range(0, size - step + 1, step)
    mean = pixels.mean(axis=(1, 2), keepdims=True).astype(np.uint8)
    base = _log_odds(answer(pixels[None]), label)[0]
    rows = []
    for top in corners:
        covered = np.repeat(pixels[None], len(corners), axis=0)
        for each, left in zip(covered, corners):
            half = step // 2
            each[:, max(0, top - half) : top + step + half, max(0, left - half) : left + step + half] = mean
        rows.append(base - _log_odds(answer(covered), label))
    return np.asarray(np.maximum(np.stack(rows), 0), dtype=np.float32)


def _log_odds(logits: np.ndarray, label: int) -> np.ndarray:
    values = logits.astype(np.float64)
    others = np.logaddexp.reduce(np.delete(values, label, axis=1), axis=1)
    return np.asarray(values[:, label] - others)
