"""The closed-form classifier of a network: linear discriminant on its *taps*, means and deviations of frozen maps.

A network with one answers the sum of two logits: those of the discriminant, and those of its head, which begins with
a classifier of zeros. So it starts at the closed form, and what rounds learn is a residual beside it. The
discriminant's tensors belong to the head (they travel with a version, hash and all), but nothing trains them:
they follow from sums (``fedspect.discriminant``).

Shapes: N images, D features, K classes.
"""

from __future__ import annotations

from typing import List, Sequence, cast

import torch
from torch import Tensor, nn

UNLIMITED = 3.4028234663852886e38  # the largest float32: no picture is asked about


class Discriminant(nn.Module):
    """Features (N, D) -> logits (N, K); zeros until a closed form is loaded. See ``fedspect.discriminant.analysis``."""

    sharpness: Tensor
    limit: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.whitening = nn.Linear(features, features)
        self.means = nn.Linear(features, classes)
        self.register_buffer("sharpness", torch.zeros(1))
        self.register_buffer("limit", torch.full((1,), UNLIMITED))
        self.requires_grad_(False)
        for layer in (self.whitening, self.means):
            layer.weight.zero_()
            layer.bias.zero_()

    def forward(self, taps: Tensor) -> Tensor:
        """Logits, in single precision whatever the rest is computed in: whitening magnifies what rounding loses."""
        with torch.autocast(taps.device.type, enabled=False):
            return cast(Tensor, self.means(self.whitening(taps.float())) * self.sharpness)

    def squared_distance(self, taps: Tensor) -> Tensor:
        """Squared Mahalanobis distance (N,) to the nearest class."""
        whitened = self.whitening(taps)
        nearest = self.means(whitened).amax(1)
        return cast(Tensor, ((whitened * whitened).sum(1) - 2 * nearest).clamp_min(0))


def tapped(features: Tensor) -> Tensor:
    """What a tap sees of a map: the mean and standard deviation of each channel: (N, C, H, W) -> (N, 2 C)."""
    flat = features.flatten(2)
    return torch.cat([flat.mean(2), flat.std(2, unbiased=False)], 1)


class TappedFrozenPart(nn.Module):
    """Frozen levels with taps: images -> rows (N, F + 2 D) of features at the cut, and taps in two halves.

    Rows pass through half precision on their way (``fedspect.training.features``). Two halves, a value and what
    rounding it lost, keep 22 bits of a tap, so that everything that reads the cache sees the same sums.

    """

    def __init__(self, levels: Sequence[nn.Module], tap_places: Sequence[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(levels)
        self.tap_places = frozenset(tap_places)
        self.train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Rows."""
        with torch.no_grad():
            taps: List[Tensor] = []
            for place, level in enumerate(self.parts):
                images = level(images)
                if place in self.tap_places:
                    taps.append(tapped(images.float()))
            found = torch.cat(taps, 1)
            high = found.half().float()
            return torch.cat([images.float().flatten(1), high, found - high], 1)

    def train(self, mode: bool = True) -> TappedFrozenPart:
        """Stay in evaluation mode whatever is asked."""
        return super().train(False)


class TappedHead(nn.Module):
    """Rows of ``TappedFrozenPart`` -> logits (N, K): the head's and the discriminant's together.

    Args:
        head: features at the cut to logits.
        discriminant: of the network.
        shape: of one picture's features at the cut.

    """

    def __init__(self, head: nn.Module, discriminant: Discriminant, shape: Sequence[int]) -> None:
        super().__init__()
        self.head = head
        self.discriminant = discriminant
        self.shape = tuple(shape)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits."""
        count = self.discriminant.whitening.in_features
        features = rows[:, : -2 * count].reshape(len(rows), *self.shape)
        residual: Tensor = self.head(features)
        return residual + cast(Tensor, self.discriminant(taps_of(rows, count)))


def taps_of(rows: Tensor, count: int) -> Tensor:
    """The ``count`` tapped values of rows."""
    return rows[:, -2 * count : -count].float() + rows[:, -count:].float()
