"""Image batches for a network: decoded once, drawn as views, normalised.

Shapes: N pictures, C channels, S the side of the network's input.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from fedspect.data.pictures import CheckedPicture
from fedspect.data.preprocess import Preprocessing
from fedspect.data.views import ViewSettings, apply_view

Item = Tuple[CheckedPicture, int]
"""A picture and the number of its view."""

Report = Callable[[int, int], None]
"""Called with (done, total) while something long goes on."""


class Images:
    """Normalised views of pictures, drawn anew for each batch.

    Args:
        preprocessing: of the base model.
        views: how variants look.
        device: where batches are normalised and handed out.
        memory_limit: bytes of decoded pixels that are kept; beyond it pictures are decoded each time.

    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        views: ViewSettings,
        *,
        device: torch.device,
        memory_limit: int,
    ) -> None:
        self.preprocessing = preprocessing
        self.views = views
        self.device = device
        self.memory_left = memory_limit
        self.computed = 0
        """Always 0: there are no features here."""
        self._kept: Dict[str, Tensor] = {}
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=device).view(1, -1, 1, 1)

    def prepare(self, items: Sequence[Item], report: Report) -> None:
        """Nothing to do beforehand: pictures are decoded when they are first shown."""

    def batch(self, items: Sequence[Item]) -> Tensor:
        """Draw float32 (N, C, S, S) on the device.

        Raises:
            PictureError: a file can no longer be read.

        """
        channels, side = self.preprocessing.channels, self.preprocessing.size
        pixels = torch.empty((len(items), channels, side, side), dtype=torch.uint8)
        for row, (picture, view) in enumerate(items):
            pixels[row] = apply_view(self.pixels(picture), view, picture.digest, self.views)
        return pixels.to(self.device).float().div_(255).sub_(self._mean).div_(self._std)

    def pixels(self, picture: CheckedPicture) -> Tensor:
        """Uint8 (C, S, S), or (1, S, S) where all three channels are the same: three times less to keep and
        to draw.
        """
        kept = self._kept.get(picture.digest)
        if kept is not None:
            return kept
        loaded = self.preprocessing.load(picture.path)
        if len(loaded) == 3 and np.array_equal(loaded[0], loaded[1]) and np.array_equal(loaded[0], loaded[2]):
            loaded = loaded[:1]
        pixels = torch.tensor(loaded)
        if pixels.numel() <= self.memory_left:
            self.memory_left -= pixels.numel()
            self._kept[picture.digest] = pixels
        return pixels

    def refresh(self) -> None:
        """Nothing to look up again: pixels are this process's own."""

    def remarks(self) -> List[str]:
        """Nothing to say."""
        return []
