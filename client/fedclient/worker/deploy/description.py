"""A condensed CondenseNetV2 as plain arrays: what every deploy graph is rewritten and written from.

Nothing here knows ONNX, and after ``describe`` nothing knows torch. Batch norms become their scale and shift
(exact in evaluation mode), everything else is copied. All arrays are float64 until they are written, so a
rewrite loses nothing that float32 would show.

Shapes: C channels, F filters, G groups, k kernel size, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple, cast

import numpy as np
import torch
from torch import nn

from fedspect.errors import ModelError
from fedspect.model.condense import condense
from fedspect.model.condensed_layers import CondensedLearnedGroupConv, CondensedSparseFeatureReactivation
from fedspect.model.condensenetv2 import CondenseNetV2, DenseLayer, SqueezeExcitation, activation_of
from fedspect.model.levels import LevelledNetwork

RELU, HARD_SWISH = "relu", "hardswish"


@dataclass(frozen=True)
class Affine:
    """``scale * x + shift`` channel by channel, both (C,)."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Conv:
    """A convolution: weight (F, C/G, k, k), bias (F,) or none."""

    weight: np.ndarray
    bias: Optional[np.ndarray] = None
    groups: int = 1


@dataclass(frozen=True)
class Excitation:
    """Squeeze-and-excitation: ``reduce`` (R, C), ``expand`` (C, R), no biases."""

    reduce: np.ndarray
    expand: np.ndarray


@dataclass(frozen=True)
class Branch:
    """Convolutions one behind the other that keep height and width. Branches are summed."""

    convs: Tuple[Conv, ...]


@dataclass(frozen=True)
class Layer:
    """One dense layer: older features (C) in, refreshed older and ``growth`` new features out.

    ``new = excite(spatial(act(norm(swap(reduce(act(ready(gather(older)))))))))`` and
    ``refreshed = older + scatter(react(swap(act(again(new)))))``. A swap of r rows transposes the channels, seen
    as a table of r rows; 0 rows: no swap. ``gather``, ``order`` (another order in place of the first swap) and
    ``scatter`` are channel numbers, None: as they come.
    """

    name: str
    block: int
    older: int
    growth: int
    activation: str
    gather: Optional[np.ndarray]
    ready: Affine
    reduce: Conv
    reduce_rows: int
    norm: Optional[Affine]
    spatial: Tuple[Branch, ...]
    excitation: Optional[Excitation]
    again: Affine
    react_rows: int
    react: Conv
    scatter: Optional[np.ndarray]
    order: Optional[np.ndarray] = None


@dataclass(frozen=True)
class Block:
    """Dense layers; with ``early_pool`` the pool behind them is taken before the last refreshing sum.

    ``pack``: the channels to go on with, by number; None: all. ``places``: where the network's own channels stand
    behind the block; None: as they come, and there are no others.

    """

    layers: Tuple[Layer, ...]
    early_pool: bool = False
    pack: Optional[np.ndarray] = None
    places: Optional[np.ndarray] = None


@dataclass(frozen=True)
class Linear:
    """A matrix (F, C) and its bias (F,)."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Description:
    """The whole network; ``stem_pooled`` is the stem and the first pool as one convolution, where used.

    ``stem_ready``: the stem with the first layer's leading norm in it, where nothing else looks at the stem.

    """

    architecture: str
    channels: int
    num_classes: int
    stem: Conv
    stem_pooled: Optional[Conv]
    stem_ready: Optional[Conv]
    blocks: Tuple[Block, ...]
    norm: Affine
    excitation: Excitation
    hidden: Linear
    classifier: Linear


def describe(network: LevelledNetwork) -> Description:
    """Read the network's weights; a learned form is condensed first.

    Raises:
        ModelError: not a CondenseNetV2, or (learned form) its dropping is not finished.

    """
    if not isinstance(network, CondenseNetV2):
        raise ModelError(
            "only CondenseNetV2 has a deploy graph",
            seen=network.architecture,
            accepted="cdnv2-a, cdnv2-b or cdnv2-c",
            remedy="choose one of them as the base model of a federation whose devices answer for a line",
        )
    condensed = network if network.form == "condensed" else condense(network)
    modules = dict(condensed.levels())
    last = cast(nn.Sequential, modules["block5"])
    parts = dict(last.named_children())
    blocks = []
    for number in range(1, 6):
        children = modules[f"block{number}"].named_children()
        layers = [(name, child) for name, child in children if isinstance(child, DenseLayer)]
        blocks.append(Block(tuple(_layer(f"block{number}/{name}", number, child) for name, child in layers)))
    return Description(
        architecture=network.architecture,
        channels=network.channels,
        num_classes=network.num_classes,
        stem=Conv(array(cast(nn.Conv2d, modules["initial"]).weight)),
        stem_pooled=None,
        stem_ready=None,
        blocks=tuple(blocks),
        norm=_affine(cast(nn.BatchNorm2d, parts["norm"])),
        excitation=_excitation(cast(SqueezeExcitation, parts["excitation"])),
        hidden=_linear(cast(nn.Linear, dict(modules["hidden"].named_children())["linear"])),
        classifier=_linear(cast(nn.Linear, modules["classifier"])),
    )


def array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as float64."""
    return cast(np.ndarray, tensor.detach().cpu().to(torch.float64).numpy().copy())


def _layer(name: str, block: int, layer: DenseLayer) -> Layer:
    lgc, sfr = cast(CondensedLearnedGroupConv, layer.lgc), cast(CondensedSparseFeatureReactivation, layer.sfr)
    excitation = layer.excitation
    return Layer(
        name=name,
        block=block,
        older=lgc.conv.in_channels,
        growth=layer.conv.conv.out_channels,
        activation=HARD_SWISH if isinstance(activation_of(block), nn.Hardswish) else RELU,
        gather=lgc.index.cpu().numpy().astype(np.int64),
        ready=_affine(lgc.norm),
        reduce=Conv(array(lgc.conv.weight), groups=lgc.groups),
        reduce_rows=lgc.groups,
        norm=_affine(layer.conv.norm),
        spatial=(Branch((Conv(array(layer.conv.conv.weight), groups=layer.conv.conv.groups),)),),
        excitation=_excitation(excitation) if isinstance(excitation, SqueezeExcitation) else None,
        again=_affine(sfr.norm),
        react_rows=sfr.conv.in_channels // sfr.groups,
        react=Conv(array(sfr.conv.weight), groups=sfr.groups),
        scatter=sfr.index.cpu().numpy().astype(np.int64),
    )


def _affine(norm: nn.BatchNorm2d) -> Affine:
    mean, variance = cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var)
    scale = array(norm.weight) / np.sqrt(array(variance) + norm.eps)
    return Affine(scale, array(norm.bias) - array(mean) * scale)


def _excitation(module: SqueezeExcitation) -> Excitation:
    return Excitation(array(module.reduce.weight), array(module.expand.weight))


def _linear(module: nn.Linear) -> Linear:
    return Linear(array(module.weight), array(module.bias))
