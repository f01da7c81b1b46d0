"""Rewrites of a description: each changes how something is computed, none changes what.

A rewrite takes a layer (or the whole description) and gives a new one; ``forms`` says which are applied for a
target. Each has its own test that the logits stay.

Shapes: C older channels, F filters of the first 1x1, S slots (= C), G groups.
"""

from __future__ import annotations

from dataclasses import replace
from typing import List, Optional

import numpy as np

from fedclient.worker.deploy.description import Affine, Branch, Conv, Description, Layer


def fold_norm(layer: Layer) -> Layer:
    """The norm before the 3x3 goes into the 1x1 before it: nothing but a swap of channels lies between."""
    if layer.norm is None:
        return layer
    scale, shift = layer.norm.scale, layer.norm.shift
    if layer.reduce_rows:
        back = unswapped(len(scale), layer.reduce_rows)
        scale, shift = scale[back], shift[back]
    weight = layer.reduce.weight * scale[:, None, None, None]
    bias = shift if layer.reduce.bias is None else shift + scale * layer.reduce.bias
    return replace(layer, reduce=Conv(weight, bias, layer.reduce.groups), norm=None)


def dense_reduce(layer: Layer) -> Layer:
    """The learned group convolution as one dense 1x1 with zeros, its filters already in their final order.

    Where the copies of each gathered channel still have one norm in common (as condensing leaves them), the
    gather disappears as well; after training each copy has a norm of its own, and the gather must stay.

    """
    if layer.gather is None or layer.reduce.groups == 1:
        return layer
    order = swapped(layer.reduce.weight.shape[0], layer.reduce_rows)
    weight = spread(layer.reduce)[order]
    bias = None if layer.reduce.bias is None else layer.reduce.bias[order]
    common = _common_norm(layer)
    if common is None:
        return replace(layer, reduce=Conv(weight, bias), reduce_rows=0)
    columns = np.zeros((weight.shape[0], layer.older))
    np.add.at(columns.T, layer.gather, weight[:, :, 0, 0].T)
    reduce = Conv(columns[:, :, None, None], bias)
    return replace(layer, gather=None, ready=common, reduce=reduce, reduce_rows=0)


def pad_reduce(layer: Layer, multiple: int = 16) -> Layer:
    """Each group of the first 1x1 gets inputs of weight zero until their number is a multiple.

    ONNX Runtime keeps grouped convolutions in its blocked layout only then.

    """
    if layer.gather is None or layer.reduce.groups == 1:
        return layer
    groups, width = layer.reduce.groups, layer.reduce.weight.shape[1]
    more = -width % multiple
    table = layer.gather.reshape(groups, width)
    gather = np.concatenate([table, table[:, :1].repeat(more, 1)], 1).ravel()

    def padded(values: np.ndarray) -> np.ndarray:
        return np.pad(values.reshape(groups, width), ((0, 0), (0, more))).ravel()

    weight = np.pad(layer.reduce.weight, ((0, 0), (0, more), (0, 0), (0, 0)))
    ready = Affine(padded(layer.ready.scale), padded(layer.ready.shift))
    return replace(layer, gather=gather, ready=ready, reduce=replace(layer.reduce, weight=weight))


def dense_react(layer: Layer) -> Layer:
    """The reactivation as one dense 1x1 with zeros: slots are added to their channels in the weights."""
    if layer.scatter is None:
        return layer
    weight = spread(layer.react)
    order = unswapped(weight.shape[1], layer.react_rows)
    rows = np.zeros((layer.older, weight.shape[1]))
    np.add.at(rows, layer.scatter, weight[:, :, 0, 0])
    return replace(layer, react=Conv(rows[:, order, None, None]), react_rows=0, scatter=None)


def depthwise_spatial(layer: Layer) -> Layer:
    """The 3x3 in groups as depthwise 3x3 convolutions, one per output of a group, and 1x1 sums of 0 and 1."""
    (branch,) = layer.spatial
    weight, groups = branch.conv.weight, branch.conv.groups
    filters, width = weight.shape[:2]
    outputs = filters // groups
    by_group = weight.reshape(groups, outputs, width, *weight.shape[2:])
    branches: List[Branch] = []
    for output in range(outputs):
        kernels = by_group[:, output].reshape(groups * width, 1, *weight.shape[2:])
        total = np.zeros((filters, groups * width, 1, 1))
        for group in range(groups):
            total[group * outputs + output, group * width : (group + 1) * width] = 1
        branches.append(Branch(Conv(kernels, groups=groups * width), Conv(total)))
    return replace(layer, spatial=tuple(branches))


def merge_spatial(layer: Layer, outputs: int = 16) -> Layer:
    """Neighbouring groups of the 3x3 become one, with zeros, until each group has ``outputs`` filters."""
    (branch,) = layer.spatial
    weight, groups = branch.conv.weight, branch.conv.groups
    filters, width = weight.shape[:2]
    merged = 1
    while filters // groups * merged % outputs and merged < groups:
        merged += 1
        while groups % merged:
            merged += 1
    wide = np.zeros((filters, width * merged, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * (filters // groups), (group + 1) * (filters // groups))
        first = group % merged * width
        wide[rows, first : first + width] = weight[rows]
    return replace(layer, spatial=(Branch(Conv(wide, branch.conv.bias, groups // merged)),))


def early_pools(description: Description) -> Description:
    """Each transition's average goes before its block's last refreshing sum: a quarter of the 1x1's work."""
    blocks = [replace(block, early_pool=True) for block in description.blocks[:-1]]
    return replace(description, blocks=(*blocks, description.blocks[-1]))


def pooled_stem(description: Description) -> Description:
    """Where block 1 is one layer, what passes it by is the stem, averaged: one 5x5 convolution of stride 4."""
    if len(description.blocks[0].layers) != 1:
        return description
    kernel = description.stem.weight
    wide = np.zeros((*kernel.shape[:2], 5, 5))
    for down in (0, 2):
        for right in (0, 2):
            wide[:, :, down : down + 3, right : right + 3] += kernel / 4
    return replace(description, stem_pooled=Conv(wide))


def pad_features(description: Description, multiple: int = 16) -> Description:
    """New features get silent (zero) channels behind them until their number is a multiple.

    A runtime with channels in blocks then never leaves its layout. Only layers whose 3x3 ends in a sum can be
    filled up, and only where nothing is scattered; others must have a multiple already.

    """
    place, width = np.arange(description.stem.weight.shape[0]), description.stem.weight.shape[0]
    blocks = []
    for block in description.blocks:
        layers = []
        for layer in block.layers:
            more = -layer.growth % multiple if layer.spatial[0].total is not None else 0
            layers.append(_padded(layer, place, width, more))
            place = np.concatenate([place, width + np.arange(layer.growth)])
            width += layer.growth + more
        blocks.append(replace(block, layers=tuple(layers)))
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


def _padded(layer: Layer, place: np.ndarray, width: int, more: int) -> Layer:
    """A layer whose older channel i stands at ``place[i]`` of ``width``, with ``more`` silent new ones."""
    assert layer.scatter is None and layer.react.groups == 1
    growth = np.arange(layer.growth)
    wider = layer.growth + more
    react = _placed(layer.react.weight[:, :, 0, 0].T, growth, wider).T
    ready, reduce = layer.ready, layer.reduce
    if layer.gather is None:
        ready = _placed_affine(ready, place, width)
        columns = _placed(reduce.weight[:, :, 0, 0].T, place, width).T
        reduce = replace(reduce, weight=columns[:, :, None, None])
    branches = [
        branch
        if branch.total is None
        else replace(branch, total=replace(branch.total, weight=_placed(branch.total.weight, growth, wider)))
        for branch in layer.spatial
    ]
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


def spread(conv: Conv) -> np.ndarray:
    """Weights in groups (F, C/G, k, k) as dense ones with zeros (F, C, k, k)."""
    filters, width = conv.weight.shape[:2]
    dense = np.zeros((filters, width * conv.groups, *conv.weight.shape[2:]))
    members = filters // conv.groups
    for group in range(conv.groups):
        rows = slice(group * members, (group + 1) * members)
        dense[rows, group * width : (group + 1) * width] = conv.weight[rows]
    return dense


def swapped(count: int, rows: int) -> np.ndarray:
    """``x[swapped]`` is x with its channels, seen as a table of that many rows, transposed."""
    return np.asarray(np.arange(count).reshape(rows, count // rows).T.ravel())


def unswapped(count: int, rows: int) -> np.ndarray:
    """The way back from ``swapped``."""
    return swapped(count, count // rows)


def _common_norm(layer: Layer) -> Optional[Affine]:
    """The norm by older channel, if all copies of each agree; channels that nobody gathers get zeros."""
    scale, shift = np.zeros(layer.older), np.zeros(layer.older)
    scale[layer.gather], shift[layer.gather] = layer.ready.scale, layer.ready.shift
    same = np.array_equal(scale[layer.gather], layer.ready.scale)
    return Affine(scale, shift) if same and np.array_equal(shift[layer.gather], layer.ready.shift) else None
