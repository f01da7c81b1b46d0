"""A small residual network: it trains, federates, deploys and answers on the line like any other."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from fedspect.model.levels import LevelledNetwork


class Residual(nn.Module):
    """Half the size, twice the channels, and a way past it."""

    def __init__(self, given, made):
        super().__init__()
        self.conv = nn.Conv2d(given, made, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(made)
        self.past = nn.Conv2d(given, made, kernel_size=1, stride=2, bias=False)

    def forward(self, features):
        return F.relu(self.norm(self.conv(features)) + self.past(features))


def tiny_net(num_classes, *, channels):
    """The entry point: fresh weights for so many classes, grey (1) or colour (3)."""
    levels = [
        ("stem", Residual(channels, 8)),
        ("block1", Residual(8, 16)),
        ("block2", Residual(16, 32)),
        ("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())),
        ("classifier", nn.Linear(32, num_classes)),
    ]
    return LevelledNetwork(
        levels,
        architecture="tiny-net",  # the entry point's name
        form="plain",
        num_classes=num_classes,
        channels=channels,
        minimum_size=32,
        default_freeze_levels=0,
    )
