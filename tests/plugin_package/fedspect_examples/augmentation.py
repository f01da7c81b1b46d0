"""Light that falls off to one side, as with a lamp that stands beside the belt."""

from __future__ import annotations

import torch


def side_light(image, generator):
    """The entry point: uint8 (C, S, S) in, the same out; draw from ``generator`` alone."""
    strength, side = torch.rand(2, generator=generator).tolist()
    size = image.shape[-1]
    fall = torch.linspace(1.0, 1.0 - 0.5 * strength, size)
    if side < 0.5:
        fall = fall.flip(0)
    return (image.float() * fall).round().clamp(0, 255).to(torch.uint8)
