"""Condensed layers: what learned groups become: a gather, a plain grouped 1x1 convolution, a scatter.

On a CPU, half of the time goes into moving channels about. Channels-last memory makes all of it quick: a
picture's position is a row of C numbers, so gathering channels, scattering them and the grouped products
all stay within a row. Where a layer is narrow (the first blocks), its grouped weights are spread out to a
dense matrix with zeros while it computes: one dense product beats eight tiny ones, and the order of
channels comes for free.

Shapes: N images, C channels, F filters, H W height and width, G groups.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedspect.model.group_conv import GroupConv2d

DENSE_UP_TO = 8192
"""A matrix of at most so many numbers is multiplied densely (measured: see ``benchmarks/model_size.py``)."""


class CondensedLearnedGroupConv(nn.Module):
    """A learned group convolution, condensed: group g looks at channels ``index[g·C/G : (g+1)·C/G]`` only.

    A channel that several groups look at is gathered several times, each time with a norm of its own.
    Filter k·G + g is the k-th of group g; ``conv`` keeps them group after group. (N, C, H, W) -> (N, F, H,
    W).

    """

    index: Tensor

    def __init__(self, channels: int, filters: int, groups: int, activation: nn.Module) -> None:
        super().__init__()
        self.groups = groups
        self.norm = nn.BatchNorm2d(channels)
        self.activation = activation
        self.conv = GroupConv2d(channels, filters, 1, groups)
        self.register_buffer("index", random_choice(channels, groups))

    def forward(self, features: Tensor) -> Tensor:
        """New features from the channels that each group looks at."""
        rows = features.permute(0, 2, 3, 1)
        gathered = rows.gather(3, self.index.expand(rows.shape)).permute(0, 3, 1, 2)
        ready = self.activation(self.norm(gathered))
        if self.conv.out_channels * self.conv.in_channels <= DENSE_UP_TO:
            # (group, filter, group, channel) with the filters of all groups taken in turn
            spread = spread_out(self.conv.weight, self.groups).transpose(0, 1)
            return F.conv2d(ready, spread.reshape(self.conv.out_channels, -1, 1, 1))
        return swap_channels(self.conv(ready), self.groups)


class CondensedSparseFeatureReactivation(nn.Module):
    """A sparse feature reactivation, condensed: slot s of a grouped convolution is added to channel
    ``index[s]``.

    Input k·G + g is the k-th of group g; slots g·S/G to (g+1)·S/G belong to group g, S = number of older
    channels.

    """

    index: Tensor

    def __init__(self, channels: int, older: int, groups: int, activation: nn.Module) -> None:
        super().__init__()
        self.groups = groups
        self.norm = nn.BatchNorm2d(channels)
        self.activation = activation
        self.conv = GroupConv2d(channels, older, 1, groups)
        self.register_buffer("index", random_choice(older, groups))

    def forward(self, older: Tensor, new: Tensor) -> Tensor:
        """Older features (N, S, H, W), refreshed by the new ones (N, C, H, W)."""
        ready = self.activation(self.norm(new))
        if self.conv.out_channels * self.conv.in_channels <= DENSE_UP_TO:
            # (group, slot, group, channel) with the channels of all groups taken in turn
            spread = spread_out(self.conv.weight, self.groups).transpose(2, 3)
            slots = F.conv2d(ready, spread.reshape(self.conv.out_channels, -1, 1, 1))
        else:
            slots = self.conv(swap_channels(ready, self.conv.in_channels // self.groups))
        rows = older.permute(0, 2, 3, 1)
        refreshed = rows.scatter_add(3, self.index.expand(rows.shape), slots.permute(0, 2, 3, 1))
        return refreshed.permute(0, 3, 1, 2)


def swap_channels(features: Tensor, rows: int) -> Tensor:
    """Channels, seen as a table of that many rows, are transposed: channel r·(C/rows) + c moves to c·rows +
    r.
    """
    pixels = features.permute(0, 2, 3, 1)
    tables = pixels.reshape(*pixels.shape[:3], rows, pixels.shape[3] // rows)
    return tables.transpose(3, 4).reshape(pixels.shape).permute(0, 3, 1, 2)


def spread_out(weight: Tensor, groups: int) -> Tensor:
    """Grouped 1x1 weights (F, C/G, 1, 1) as a dense matrix with zeros between groups: (G, F/G, G, C/G)."""
    apart = torch.eye(groups, dtype=weight.dtype, device=weight.device).view(groups, 1, groups, 1)
    return weight.view(groups, -1, 1, weight.shape[1]) * apart


def random_choice(channels: int, groups: int) -> Tensor:
    """Each group draws ``channels / groups`` different channels: (channels,) int64."""
    return torch.cat([torch.randperm(channels)[: channels // groups].sort().values for _ in range(groups)])
