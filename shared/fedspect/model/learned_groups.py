"""Learned group convolution and sparse feature reactivation, as they are while a base model is pre-trained.

Both are dense 1x1 convolutions whose connections are dropped in stages during the first half of the
training, until each group keeps one in ``groups`` of them. Then ``fedspect.model.condense`` turns them into
plain grouped form.

- Learned group convolution (LGC; Huang et al., "CondenseNet", CVPR 2018, section 3): the *output* filters
  g, g + G, g + 2G ... form group g, and each group chooses which input channels it looks at.
- Sparse feature reactivation (SFR; Yang et al., "CondenseNet V2", CVPR 2021, section 3.2): the *input*
channels
  g, g + G ... form group g, and each group chooses which of the older features it refreshes.

Which connections are left is one small table, ``kept`` (G, channels to choose from); a filter follows from
its group.

Shapes: N images, C channels, H W height and width, F filters, G groups.
"""

from __future__ import annotations

from typing import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedspect.errors import ModelError

LASSO_FLOOR = 1e-6
"""Squared length below which a bundle of weights no longer pulls: keeps the root's slope finite."""


class LearnedGroups(nn.Module):
    """What the two have in common: norm, activation, masked 1x1 convolution, choice of connections."""

    kept: Tensor

    def __init__(self, channels: int, filters: int, choices: int, groups: int, activation: nn.Module) -> None:
        super().__init__()
        if channels % groups or filters % groups:
            raise ModelError(
                "channels cannot be shared out evenly to groups",
                seen=f"{channels} -> {filters} in {groups} groups",
            )
        self.groups = groups
        self.norm = nn.BatchNorm2d(channels)
        self.activation = activation
        self.conv = nn.Conv2d(channels, filters, kernel_size=1, bias=False)
        self.register_buffer("kept", torch.ones(groups, choices, dtype=torch.bool))

    def answer(self, features: Tensor) -> Tensor:
        """Norm, activation and the connections that are left: (N, C, H, W) -> (N, filters, H, W)."""
        return F.conv2d(self.activation(self.norm(features)), self.conv.weight * self.mask())

    @property
    def stage(self) -> int:
        """How many of the ``groups - 1`` stages of dropping are done."""
        choices = self.kept.shape[1]
        return int(choices - int(self.kept[0].sum())) // (choices // self.groups)

    @property
    def finished(self) -> bool:
        """All connections are dropped that will be, in every group."""
        left = self.kept.shape[1] // self.groups
        return bool((self.kept.sum(dim=1) == left).all())

    def drop_to(self, stage: int) -> int:
        """Drop the weakest connections until ``stage``; how many single weights that cost."""
        step = self.kept.shape[1] // self.groups
        dropped = 0
        while self.stage < stage:
            strength = self.bundles().abs().sum(1).masked_fill(~self.kept, float("inf"))
            weakest = strength.argsort(dim=1, stable=True)[:, :step]
            self.kept.scatter_(1, weakest, False)
            dropped += self.conv.weight.numel() // self.groups
        return dropped

    def lasso(self) -> Tensor:
        """Sum of the lengths of all bundles (CondenseNet, section 3.2): 0 once the dropping is done."""
        if self.finished:
            return self.conv.weight.new_zeros(())
        lengths = self.bundles().pow(2).sum(1).clamp(min=LASSO_FLOOR).sqrt()
        return (lengths * self.kept).sum()

    def bundles(self) -> Tensor:
        """Weights as (G, members of a group, choices): what a group gives up or keeps as one."""
        raise NotImplementedError

    def mask(self) -> Tensor:
        """1 where a weight of the convolution is left: (filters, channels, 1, 1), in the weight's type."""
        raise NotImplementedError


class LearnedGroupConv(LearnedGroups):
    """LGC: each group of filters keeps its own ``channels / groups`` inputs: (N, C, H, W) -> (N, F, H, W)."""

    def __init__(self, channels: int, filters: int, groups: int, activation: nn.Module) -> None:
        super().__init__(channels, filters, channels, groups, activation)

    def forward(self, features: Tensor) -> Tensor:
        """New features from the inputs that each group keeps."""
        return self.answer(features)

    def bundles(self) -> Tensor:
        """Filter k·G + g is member k of group g."""
        return by_group(self.conv.weight.flatten(1), self.groups)

    def mask(self) -> Tensor:
        """Filter k·G + g looks at what group g kept."""
        return self.kept.to(self.conv.weight.dtype).repeat(self.conv.out_channels // self.groups, 1)[
            ..., None, None
        ]


class SparseFeatureReactivation(LearnedGroups):
    """SFR: each group of new channels refreshes its own ``older / groups`` older features."""

    def __init__(self, channels: int, older: int, groups: int, activation: nn.Module) -> None:
        super().__init__(channels, older, older, groups, activation)

    def forward(self, older: Tensor, new: Tensor) -> Tensor:
        """Older features (N, older, H, W), refreshed by the new ones (N, C, H, W)."""
        return older + self.answer(new)

    def bundles(self) -> Tensor:
        """Input k·G + g is member k of group g."""
        return by_group(self.conv.weight.flatten(1).t(), self.groups)

    def mask(self) -> Tensor:
        """Input k·G + g reaches what group g kept."""
        return (
            self.kept.to(self.conv.weight.dtype)
            .repeat(self.conv.in_channels // self.groups, 1)
            .t()[..., None, None]
        )


def by_group(rows: Tensor, groups: int) -> Tensor:
    """Rows (k·G + g) -> (G, k, row): those of one group together."""
    return rows.reshape(-1, groups, rows.shape[1]).transpose(0, 1)


def learned_groups(network: nn.Module) -> Iterator[LearnedGroups]:
    """All learned group layers of a network, in order."""
    return (module for module in network.modules() if isinstance(module, LearnedGroups))


def set_progress(network: nn.Module, fraction_of_training: float) -> int:
    """Drop what is due when this fraction (0 to 1) of the training is done; how many weights that cost.

    The first half of the training is cut into G - 1 equal stages; as each begins (the first at 0 is for
    learning undisturbed), every group gives up one in G of its connections. From one half on, all are
    dropped that will be. Call it before each step, or each epoch: a call that skips stages catches up.

    """
    dropped = 0
    for layer in learned_groups(network):
        stages = layer.groups - 1
        due = int(min(1.0, max(0.0, 2.0 * fraction_of_training)) * stages + 1e-6)
        dropped += layer.drop_to(due)
    return dropped


def group_lasso(network: nn.Module) -> Tensor:
    """The group-lasso term, to be added to the loss times about 1e-5: groups come to agree on inputs."""
    terms = [layer.lasso() for layer in learned_groups(network)]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def is_finished(network: nn.Module) -> bool:
    """Every learned group has dropped all that it will: the network can be condensed."""
    return all(layer.finished for layer in learned_groups(network))


def finish(network: nn.Module) -> int:
    """Drop all that is still due, at once; how many weights that cost."""
    return set_progress(network, 1.0)


def kept_channels(layer: LearnedGroups) -> Tensor:
    """Which channels each group kept, ascending: (G, choices / G) int64."""
    groups, choices = layer.kept.shape
    return layer.kept.nonzero()[:, 1].view(groups, choices // groups)
