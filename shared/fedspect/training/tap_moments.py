"""Moments of a base model's taps on its pre-training pictures: what public data says about features.

Mean and standard deviation of each tapped value, and the leading directions of the standardised values: scales and a
projection that no plant's picture had a part in, so that clipping, noise and projections of a plant's own sums
need not be measured on the plant. ``taps.safetensors`` lies beside the weights; nothing that answers depends on it.

Shapes: N pictures, D tapped values, K directions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np
import safetensors.torch
import torch

from fedspect.data.pictures import CheckedPicture
from fedspect.files import write_bytes
from fedspect.model.base import BaseNetwork
from fedspect.model.discriminant import tapped
from fedspect.model.levels import tap_places

MOMENTS_FILE = "taps.safetensors"
FORMAT = "fedspect tap moments 1"
MOST_PICTURES = 1000
DIRECTIONS = 64
BATCH = 32


def write_tap_moments(folder: Path, base: BaseNetwork, pictures: Sequence[CheckedPicture]) -> None:
    """Write ``taps.safetensors``: "mean" (D), "deviation" (D) in float32, "directions" (K, D) in half precision.

    Args:
        folder: of the base model.
        base: of which the taps before the recommended cut are meant; without such a cut nothing is written.
        pictures: of pre-training; of many an even share is looked at.

    Raises:
        PictureError: a file can no longer be read.
        StorageError: it cannot be written.

    """
    network = base.network(base.card.classes, seed=0).eval()
    places = tap_places(network, base.card.default_freeze_levels)
    if not places:
        return
    levels = [level for _, level in network.levels()[: max(places) + 1]]
    chosen = list(pictures)[:: max(1, -(-len(pictures) // MOST_PICTURES))]
    rows = []
    with torch.no_grad():
        for first in range(0, len(chosen), BATCH):
            pixels = np.stack([base.preprocessing.load(each.path) for each in chosen[first : first + BATCH]])
            features = torch.from_numpy(base.preprocessing.normalise(pixels))
            taps = []
            for place, level in enumerate(levels):
                features = level(features)
                if place in places:
                    taps.append(tapped(features))
            rows.append(torch.cat(taps, 1))
    values = torch.cat(rows).double()
    mean, deviation = values.mean(0), values.std(0, unbiased=False).clamp(min=1e-6)
    _, _, directions = torch.linalg.svd((values - mean) / deviation, full_matrices=False)
    state = {
        "mean": mean.float(),
        "deviation": deviation.float(),
        "directions": directions[:DIRECTIONS].half().contiguous(),
    }
    metadata = {"format": FORMAT, "content_hash": base.content_hash, "pictures": str(len(chosen))}
    write_bytes(folder / MOMENTS_FILE, safetensors.torch.save(state, metadata))
