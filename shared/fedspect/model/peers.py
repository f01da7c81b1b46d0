"""Baseline networks that CondenseNetV2 is compared with: a plain CNN, and torchvision's classifiers by name.

They train, federate and report through the same interface. No weights are fetched: they start from scratch or
from a base model that was pre-trained here. Names are torchvision's with dashes: ``mobilenet-v3-small``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import List, Tuple

from torch import nn

from fedspect.model.levels import LevelledNetwork
from fedspect.model.torchvision_peers import torchvision_names, torchvision_network

PLAIN_CNN = "plain-cnn"
PLAIN_CNN_FILTERS = (32, 64, 128, 128, 256)
PLAIN_CNN_HIDDEN = 256


def peer_names() -> List[str]:
    """Every peer's name."""
    return [PLAIN_CNN, *torchvision_names()]


def build_peer(architecture: str, num_classes: int, *, channels: int) -> LevelledNetwork:
    """A peer with fresh weights."""
    if architecture == PLAIN_CNN:
        return plain_cnn(num_classes, channels)
    return torchvision_network(architecture, num_classes, channels=channels)


def plain_cnn(num_classes: int, channels: int) -> LevelledNetwork:
    """Five times convolution, ReLU and max pool, then two full layers: a CNN as in a textbook."""
    levels: List[Tuple[str, nn.Module]] = []
    width = channels
    for place, filters in enumerate(PLAIN_CNN_FILTERS, 1):
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv"] = nn.Conv2d(width, filters, kernel_size=3, padding=1)
        parts["activation"] = nn.ReLU(inplace=True)
        parts["pool"] = nn.MaxPool2d(2)
        levels.append((f"conv{place}", nn.Sequential(parts)))
        width = filters
    hidden: OrderedDict[str, nn.Module] = OrderedDict()
    hidden["pool"] = nn.AdaptiveAvgPool2d(4)
    hidden["flatten"] = nn.Flatten()
    hidden["linear"] = nn.Linear(16 * width, PLAIN_CNN_HIDDEN)
    hidden["activation"] = nn.ReLU(inplace=True)
    hidden["dropout"] = nn.Dropout(0.5)
    levels.append(("hidden", nn.Sequential(hidden)))
    levels.append(("classifier", nn.Linear(PLAIN_CNN_HIDDEN, num_classes)))
    for _, level in levels:
        for module in level.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return LevelledNetwork(
        levels,
        architecture=PLAIN_CNN,
        form="plain",
        num_classes=num_classes,
        channels=channels,
        minimum_size=64,
        default_freeze_levels=0,
    )
