"""A group convolution whose backward pass on a CPU is as quick as its forward pass, in every torch from 2.1
on.

torch 2.1 takes up to a hundred times longer for the gradient of a group convolution's input than for its
output when memory is laid out channels-last, the layout that 1x1 convolutions need to be quick. That
gradient is itself a group convolution, of the other direction, so here it is computed as one.

Shapes: N images, C channels, F filters, H W height and width, G groups, k kernel size.
"""

from __future__ import annotations

from typing import Any, Tuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GroupConv2d(nn.Conv2d):
    """``nn.Conv2d`` in groups, stride 1, the size kept, no bias: (N, C, H, W) -> (N, F, H, W)."""

    def __init__(self, channels: int, filters: int, kernel_size: int, groups: int) -> None:
        super().__init__(channels, filters, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve; on a CPU, in training, with the quick backward pass. An exporter traces the plain operator."""
        traced = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if features.device.type == "cpu" and torch.is_grad_enabled() and not traced:
            return cast(Tensor, _GroupConv.apply(features, self.weight, self.groups))
        return super().forward(features)


class _GroupConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.groups = groups
        return F.conv2d(features, weight, padding=weight.shape[-1] // 2, groups=groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tuple[object, ...]:
        features, weight = ctx.saved_tensors
        padding, groups = weight.shape[-1] // 2, ctx.groups
        for_features = for_weight = None
        if ctx.needs_input_grad[0]:
            for_features = F.conv2d(slope, turned(weight, groups), padding=padding, groups=groups)
        if ctx.needs_input_grad[1]:
            ones, zeros = [1, 1], [0, 0]
            _, for_weight, _ = torch.ops.aten.convolution_backward(
                slope, features, weight, None, ones, [padding, padding], ones, False, zeros, groups,
                [False, True, False],
            )  # fmt: skip
        return for_features, for_weight, None


def turned(weight: Tensor, groups: int) -> Tensor:
    """The kernels of the other direction: (F, C/G, k, k) -> (C, F/G, k, k), each turned by half a turn."""
    by_group = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
    return by_group.flip(3, 4).reshape(-1, weight.shape[0] // groups, *weight.shape[2:])
