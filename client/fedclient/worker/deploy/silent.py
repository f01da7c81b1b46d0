"""Silent channels: zero in, zero weights behind them, so that a runtime with channels in blocks never leaves its
layout.
"""

from __future__ import annotations

from dataclasses import replace
from typing import List

import numpy as np

from fedclient.worker.deploy.description import Affine, Block, Branch, Conv, Description, Layer


def pad_features(description: Description, multiple: int = 16) -> Description:
    """The stem and new features get silent (zero) channels until their number is a multiple.

    Only layers whose 3x3 ends in a sum and is not excited can be filled up, and only where nothing is scattered;
    others must have a multiple already. Behind each block but the last the features are packed: as few silent
    channels are left as a multiple needs.

    """
    stem, channels = description.stem.weight, description.stem.weight.shape[0]
    place, width = np.arange(channels), channels + -channels % multiple
    description = replace(description, stem=Conv(_placed(stem, place, width)))
    blocks: List[Block] = []
    for block in description.blocks:
        layers = []
        for layer in block.layers:
            sums = len(layer.spatial[0].convs) > 1 and layer.excitation is None
            wider = layer.growth + (-layer.growth % multiple if sums else 0)
            own = _evenly(layer.growth, wider, multiple)
            layers.append(_padded(layer, place, width, own, wider))
            place = np.concatenate([place, width + own])
            width += wider
        block = replace(block, layers=tuple(layers))
        packed = len(place) + -len(place) % multiple
        if packed < width and len(blocks) < len(description.blocks) - 1:
            silent = np.setdiff1d(np.arange(width), place)[: packed - len(place)]
            block = replace(block, pack=np.concatenate([place, silent]))
            place, width = np.arange(len(place)), packed
        blocks.append(replace(block, places=place))
    excitation, hidden = description.excitation, description.hidden
    return replace(
        description,
        blocks=tuple(blocks),
        norm=_placed_affine(description.norm, place, width),
        excitation=replace(
            excitation,
            reduce=_placed(excitation.reduce.T, place, width).T,
            expand=_placed(excitation.expand, place, width),
        ),
        hidden=replace(hidden, weight=_placed(hidden.weight.T, place, width).T),
    )


def _evenly(count: int, width: int, multiple: int) -> np.ndarray:
    """Where ``count`` channels go among ``width``: as many into each ``multiple`` of them, so that the sums in
    front of them can be taken in groups (``grouped_total``).
    """
    blocks = width // multiple
    channels = np.arange(count)
    if count == width or count % blocks:
        return channels
    return channels // (count // blocks) * multiple + channels % (count // blocks)


def _padded(layer: Layer, place: np.ndarray, width: int, growth: np.ndarray, wider: int) -> Layer:
    """A layer whose older channel i stands at ``place[i]`` of ``width``, its new one at ``growth[i]`` of
    ``wider``.
    """
    assert layer.scatter is None and layer.react.groups == 1
    react = _placed(layer.react.weight[:, :, 0, 0].T, growth, wider).T
    ready, reduce = layer.ready, layer.reduce
    if layer.gather is None:
        ready = _placed_affine(ready, place, width)
        columns = _placed(reduce.weight[:, :, 0, 0].T, place, width).T
        reduce = replace(reduce, weight=columns[:, :, None, None])
    branches = []
    for branch in layer.spatial:
        *convs, total = branch.convs
        if wider > layer.growth:
            total = replace(total, weight=_placed(total.weight, growth, wider))
        branches.append(Branch((*convs, total)))
    return replace(
        layer,
        older=width,
        growth=wider,
        gather=None if layer.gather is None else place[layer.gather],
        ready=ready,
        reduce=reduce,
        spatial=tuple(branches),
        again=_placed_affine(layer.again, growth, wider),
        react=replace(layer.react, weight=_placed(react, place, width)[:, :, None, None]),
    )


def _placed(rows: np.ndarray, place: np.ndarray, width: int) -> np.ndarray:
    """Row i moves to ``place[i]`` of ``width`` rows; the others are zero."""
    result = np.zeros((width, *rows.shape[1:]))
    result[place] = rows
    return result


def _placed_affine(affine: Affine, place: np.ndarray, width: int) -> Affine:
    return Affine(_placed(affine.scale, place, width), _placed(affine.shift, place, width))
