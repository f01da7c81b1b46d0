"""CondenseNetV2 (Yang et al., "CondenseNet V2: Sparse Feature Reactivation for Deep Networks", CVPR 2021).

A dense layer makes ``growth`` new channels from all older ones (a learned group convolution, then a 3x3
group convolution) and, what is new in V2, lets the new channels refresh the older ones before they are
passed on. Five blocks of such layers with average pools between them; then a hidden layer and the
classifier. Twelve levels::

    1 initial   2 block1   3 transition1   4 block2   5 transition2   6 block3   7 transition3   8 block4
    9 transition4   10 block5 (with its norm, pool and excitation)   11 hidden   12 classifier

Activations are ReLU, from block 3 on hard-swish; squeeze-and-excitation from block 4 on (section 3.3 and
table 1).

Shapes: N images, C channels, H W height and width, K classes, G groups.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Dict, List, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedspect.model.condensed_layers import CondensedLearnedGroupConv, CondensedSparseFeatureReactivation
from fedspect.model.group_conv import GroupConv2d
from fedspect.model.learned_groups import LearnedGroupConv, SparseFeatureReactivation
from fedspect.model.levels import LevelledNetwork

HARD_SWISH_FROM_BLOCK = 3
EXCITATION_FROM_BLOCK = 4
LAST_EXCITATION_REDUCTION = 16
BOTTLENECK = 4
DEFAULT_FREEZE_LEVELS = 8
MINIMUM_SIZE = 64


@dataclass(frozen=True)
class Architecture:
    """One row of the paper's table: layers and growth of each block, groups, width of the hidden layer."""

    layers: Tuple[int, ...]
    growth: Tuple[int, ...]
    groups: int
    hidden: int


PLANS: Dict[str, Architecture] = {
    "cdnv2-a": Architecture((1, 1, 4, 6, 8), (8, 8, 16, 32, 64), groups=8, hidden=828),
    "cdnv2-b": Architecture((2, 4, 6, 8, 6), (6, 12, 24, 48, 96), groups=6, hidden=1024),
    "cdnv2-c": Architecture((4, 6, 8, 10, 8), (8, 16, 32, 64, 128), groups=8, hidden=1024),
}


def activation_of(block: int) -> nn.Module:
    """ReLU, from block 3 on hard-swish."""
    return nn.Hardswish() if block >= HARD_SWISH_FROM_BLOCK else nn.ReLU(inplace=True)


class SqueezeExcitation(nn.Module):
    """Each channel times a factor of 0 to 1 that follows from all channels' means; shapes stay."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, channels // reduction, bias=False)
        self.expand = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Scaled features."""
        means = features.mean((2, 3))
        factors = torch.sigmoid(self.expand(torch.relu(self.reduce(means))))
        return features * factors[:, :, None, None]


class GlobalPool(nn.Module):
    """The mean of each channel: (N, C, H, W) -> (N, C, 1, 1).

    As a pool of the full size: the gradient of ``mean`` has no memory of its own, which slows down what follows.

    """

    def forward(self, features: Tensor) -> Tensor:
        """Pooled features."""
        height, width = (
            int(side) for side in features.shape[2:]
        )  # numbers, so that an export sees a fixed size
        return F.avg_pool2d(features, kernel_size=(height, width))


class GroupConv3x3(nn.Sequential):
    """Norm, activation, 3x3 group convolution: (N, C, H, W) -> (N, growth, H, W)."""

    def __init__(self, channels: int, growth: int, groups: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.activation = activation
        self.conv = GroupConv2d(channels, growth, 3, groups)


class DenseLayer(nn.Module):
    """Makes ``growth`` new channels and refreshes the older ones: (N, C, H, W) -> (N, C + growth, H, W)."""

    def __init__(self, channels: int, growth: int, groups: int, block: int, condensed: bool) -> None:
        super().__init__()
        inner = BOTTLENECK * growth
        self.lgc: Union[CondensedLearnedGroupConv, LearnedGroupConv]
        self.sfr: Union[CondensedSparseFeatureReactivation, SparseFeatureReactivation]
        self.lgc = (CondensedLearnedGroupConv if condensed else LearnedGroupConv)(
            channels, inner, groups, activation_of(block)
        )
        self.conv = GroupConv3x3(inner, growth, groups, activation_of(block))
        self.excitation = SqueezeExcitation(growth, 1) if block >= EXCITATION_FROM_BLOCK else nn.Identity()
        self.sfr = (CondensedSparseFeatureReactivation if condensed else SparseFeatureReactivation)(
            growth, channels, groups, activation_of(block)
        )

    def forward(self, older: Tensor) -> Tensor:
        """Refreshed older features, and the new ones behind them."""
        older = older.contiguous(memory_format=torch.channels_last)
        new = self.excitation(self.conv(self.lgc(older)))
        return torch.cat([self.sfr(older, new), new], 1)


class CondenseNetV2(LevelledNetwork):
    """Models A, B and C: (N, C, H, W) -> (N, K), from 64 pixels on, one or three channels."""

    taps = ("transition2", "transition3", "transition4")

    def __init__(self, architecture: str, num_classes: int, *, channels: int, form: str) -> None:
        plan, condensed = PLANS[architecture], form == "condensed"
        width = 2 * plan.growth[0]
        levels: List[Tuple[str, nn.Module]] = [
            ("initial", nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False))
        ]
        blocks = len(plan.layers)
        for block, (count, growth) in enumerate(zip(plan.layers, plan.growth), 1):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for place in range(1, count + 1):
                layers[f"layer{place}"] = DenseLayer(width, growth, plan.groups, block, condensed)
                width += growth
            if block < blocks:
                levels.append((f"block{block}", nn.Sequential(layers)))
                levels.append((f"transition{block}", nn.AvgPool2d(kernel_size=2, stride=2)))
            else:
                layers["norm"] = nn.BatchNorm2d(width)
                layers["activation"] = nn.ReLU(inplace=True)
                layers["pool"] = GlobalPool()
                layers["excitation"] = SqueezeExcitation(width, LAST_EXCITATION_REDUCTION)
                layers["flatten"] = nn.Flatten()
                levels.append((f"block{block}", nn.Sequential(layers)))
        hidden = OrderedDict([("linear", nn.Linear(width, plan.hidden)), ("activation", nn.Hardswish())])
        levels.append(("hidden", nn.Sequential(hidden)))
        levels.append(("classifier", nn.Linear(plan.hidden, num_classes)))
        super().__init__(
            levels,
            architecture=architecture,
            form=form,
            num_classes=num_classes,
            channels=channels,
            minimum_size=MINIMUM_SIZE,
            default_freeze_levels=DEFAULT_FREEZE_LEVELS,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def dense_layers(self) -> List[Tuple[str, DenseLayer]]:
        """All dense layers in order, by full name."""
        return [(name, module) for name, module in self.named_modules() if isinstance(module, DenseLayer)]
