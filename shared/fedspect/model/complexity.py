"""Parameters and multiply-adds of a network, and how they compare with published figures.

Multiply-adds are those of convolutions and linear layers, one for each product of a weight and an input. The
figures that CondenseNetV2 was published with (46M, 146M, 309M) count, besides, one operation for each output of an
activation and one for each input of a 2x2 average pool; ``operations`` is that sum, and rounds to exactly those.
Parameters are those that a plant stores: of learned groups only the connections that stay (one in ``groups``), as in
the condensed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Tuple, cast

import torch
from torch import Tensor, nn

from fedspect.model.condensed_layers import CondensedLearnedGroupConv, CondensedSparseFeatureReactivation
from fedspect.model.learned_groups import LearnedGroups
from fedspect.model.levels import LevelledNetwork

WITH_GROUPS = (LearnedGroups, CondensedLearnedGroupConv, CondensedSparseFeatureReactivation)
"""Layers that multiply with their convolution's weights themselves."""


@dataclass(frozen=True)
class Size:
    """What a network costs."""

    parameters: int
    multiply_adds: int
    """For one picture."""
    operations: int
    """Multiply-adds, outputs of activations and inputs of average pools, as the authors count."""
    by_level: Dict[str, int]
    """Multiply-adds of each level."""


def count(network: LevelledNetwork, size: int = 224) -> Size:
    """Size of ``network`` for one picture of ``size`` x ``size`` pixels."""
    owners = {module.conv: module for module in network.modules() if isinstance(module, WITH_GROUPS)}
    work: Dict[str, int] = {name: 0 for name, _ in network.levels()}
    beside: List[int] = []

    def convolved(level: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Tuple[Tensor, ...], output: Tensor) -> None:
            work[level] += _connections(layer) * output.shape[-2] * output.shape[-1]

        return hook

    def multiplied(level: str) -> Callable[..., None]:
        def hook(layer: nn.Linear, inputs: Tuple[Tensor, ...], output: Tensor) -> None:
            work[level] += layer.weight.numel()

        return hook

    def activated(layer: nn.Module, inputs: Tuple[Tensor, ...], output: Tensor) -> None:
        beside.append(output.numel())

    def pooled(layer: nn.Module, inputs: Tuple[Tensor, ...], output: Tensor) -> None:
        beside.append(inputs[0].numel())

    hooks: List[Any] = []
    for level, part in network.levels():
        for module in part.modules():
            if isinstance(module, WITH_GROUPS) or (isinstance(module, nn.Conv2d) and module not in owners):
                hooks.append(module.register_forward_hook(convolved(level)))
            elif isinstance(module, nn.Linear):
                hooks.append(module.register_forward_hook(multiplied(level)))
            elif isinstance(module, (nn.ReLU, nn.Hardswish)):
                hooks.append(module.register_forward_hook(activated))
            elif isinstance(module, nn.AvgPool2d):
                hooks.append(module.register_forward_hook(pooled))
    training = network.training
    try:
        network.eval()
        with torch.no_grad():
            picture = torch.zeros(1, network.channels, size, size, device=next(network.parameters()).device)
            network(picture)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(training)
    dropped = sum(owner.conv.weight.numel() - _connections(owner) for owner in owners.values())
    parameters = sum(value.numel() for value in network.parameters()) - dropped
    products = sum(work.values())
    return Size(parameters, products, products + sum(beside), work)


def _connections(layer: nn.Module) -> int:
    """Weights of a layer's convolution that stay."""
    if isinstance(layer, LearnedGroups):
        return layer.conv.weight.numel() // layer.groups
    convolution = layer.conv if isinstance(layer, WITH_GROUPS) else layer
    return cast(nn.Conv2d, convolution).weight.numel()
