"""What learned groups become once condensed: a gather, a plain grouped 1x1 convolution, a scatter.

Half of a condensed network's work in training is moving channels about, so both layers keep to the two
moves that torch does well on a CPU in both directions (``index_select`` and ``index_add``).

Shapes: N images, C channels, H W height and width, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def interleave(features: Tensor, groups: int) -> Tensor:
    """Channel g·M + k moves to k·G + g (M = C / G members a group): from group by group to one of each in turn."""
    return features.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def deinterleave(features: Tensor, groups: int) -> Tensor:
    """Channel k·G + g moves to g·M + k: the way back."""
    return features.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1, 2)


class GatheredGroupConv(nn.Module):
    """A learned group convolution, condensed: group g looks at channels ``index[g·M : (g+1)·M]`` only.

    A channel that several groups look at is gathered several times, each with its own norm.
    (N, C, H, W) -> (N, filters, H, W).

    """

    index: Tensor

    def __init__(self, channels: int, filters: int, groups: int, activation: nn.Module) -> None:
        super().__init__()
        self.groups = groups
        self.norm = nn.BatchNorm2d(channels)
        self.activation = activation
        self.conv = nn.Conv2d(channels, filters, kernel_size=1, groups=groups, bias=False)
        self.register_buffer("index", random_choice(channels, groups))

    def forward(self, features: Tensor) -> Tensor:
        """New features from the channels that each group looks at."""
        gathered = features.index_select(1, self.index)
        return interleave(self.conv(self.activation(self.norm(gathered))), self.groups)


class ScatteredReactivation(nn.Module):
    """A sparse feature reactivation, condensed: slot s of a grouped convolution is added to channel ``index[s]``."""

    index: Tensor

    def __init__(self, channels: int, older: int, groups: int, activation: nn.Module) -> None:
        super().__init__()
        self.groups = groups
        self.norm = nn.BatchNorm2d(channels)
        self.activation = activation
        self.conv = nn.Conv2d(channels, older, kernel_size=1, groups=groups, bias=False)
        self.register_buffer("index", random_choice(older, groups))

    def forward(self, older: Tensor, new: Tensor) -> Tensor:
        """Older features (N, older, H, W), refreshed by the new ones (N, C, H, W)."""
        slots = self.conv(deinterleave(self.activation(self.norm(new)), self.groups))
        return older.index_add(1, self.index, slots)


def random_choice(channels: int, groups: int) -> Tensor:
    """Each group draws ``channels / groups`` different channels: (channels,) int64."""
    return torch.cat([torch.randperm(channels)[: channels // groups].sort().values for _ in range(groups)])
