"""Sampling order and learning-rate schedule, both decided by seed and epoch alone.

Epochs are counted over all rounds: the third round of two epochs shows epochs 4 and 5 of one schedule. So a
run that is resumed, or cut into rounds otherwise, meets the same orders and step sizes.
"""

from __future__ import annotations

import math
from typing import List

import numpy as np

from fedspect.seeds import derived_seed


def epoch_batches(count: int, batch_size: int, *, seed: int, epoch: int) -> List[np.ndarray]:
    """Shuffle ``count`` pictures into batches of at most ``batch_size``, equally large to within one.

    Equal batches matter for small plants: of 33 pictures, 17 and 16 instead of 32 and one whose batch
    statistics are noise.

    Returns:
        int64 arrays of positions, each position once.

    """
    order = np.random.default_rng(derived_seed("order", seed, epoch)).permutation(count)
    return np.array_split(order, max(1, math.ceil(count / batch_size))) if count else []


def learning_rate_share(
    epoch: float, total_epochs: float, *, warmup_epochs: float, final_share: float
) -> float:
    """Share of the top step size at a fractional epoch: a linear rise from a tenth, then half a cosine.

    Loshchilov and Hutter, SGDR, ICLR 2017, eq. 5, with one cycle over all rounds.
    """
    warmup = min(warmup_epochs, total_epochs / 2)
    if epoch < warmup:
        return 0.1 + 0.9 * max(epoch, 0.0) / warmup
    way = min(1.0, (epoch - warmup) / max(1e-9, total_epochs - warmup))
    return final_share + (1.0 - final_share) * 0.5 * (1.0 + math.cos(math.pi * way))
