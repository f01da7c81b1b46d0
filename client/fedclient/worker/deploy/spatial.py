"""Rewrites of a layer's 3x3 convolution in groups: none of them changes what it computes.

ONNX Runtime's blocked layout computes sixteen filters at a time, and a group of CondenseNetV2 has one to
sixteen. How the others of the sixteen are avoided, or put to use, depends on how many filters a group has.

Shapes: C channels in, F filters, G groups.
"""

from __future__ import annotations

from dataclasses import replace
from typing import List

import numpy as np

from fedclient.worker.deploy.description import Branch, Conv, Layer
from fedclient.worker.deploy.rewrites import merges


def filters_in_a_group(layer: Layer) -> int:
    """How many filters a group of the 3x3 has, before any rewrite."""
    conv = _grouped(layer)
    return len(conv.weight) // conv.groups


def depthwise_spatial(layer: Layer) -> Layer:
    """The 3x3 in groups as depthwise 3x3 convolutions, one per output of a group, and 1x1 sums of 0 and 1."""
    conv = _grouped(layer)
    weight, groups = conv.weight, conv.groups
    filters, width = weight.shape[:2]
    outputs = filters // groups
    by_group = weight.reshape(groups, outputs, width, *weight.shape[2:])
    branches: List[Branch] = []
    for output in range(outputs):
        kernels = by_group[:, output].reshape(groups * width, 1, *weight.shape[2:])
        total = np.zeros((filters, groups * width, 1, 1))
        for group in range(groups):
            total[group * outputs + output, group * width : (group + 1) * width] = 1
        branches.append(Branch((Conv(kernels, groups=groups * width), Conv(total))))
    return replace(layer, spatial=tuple(branches))


def merge_spatial(layer: Layer, outputs: int = 16) -> Layer:
    """Neighbouring groups of the 3x3 become one, with zeros, until each group has ``outputs`` filters."""
    conv = _grouped(layer)
    merged = _merged(conv, merges(conv.groups, filters_in_a_group(layer), outputs))
    return replace(layer, spatial=(Branch((merged,)),))


def column_spatial(layer: Layer, multiple: int = 16) -> Layer:
    """The 3x3 in groups as its three columns: each filter's columns are filters of a 3x1 of their own, which a
    depthwise 1x3 moves by a pixel and a 1x1 adds up.

    So a group fills three times as many of the sixteen lanes, and fewer groups (or none) need merging with zeros.

    """
    conv = _grouped(layer)
    conv = _merged(conv, merges(conv.groups, conv.weight.shape[1], multiple))
    filters, width, _, columns = conv.weight.shape
    members = filters // conv.groups
    lanes = columns * members + -(columns * members) % multiple
    vertical = np.zeros((conv.groups, lanes, width, 3, 1))
    moves = np.zeros((conv.groups, lanes, 1, 1, columns))
    total = np.zeros((filters, conv.groups, lanes))
    by_group = conv.weight.reshape(conv.groups, members, width, 3, columns)
    for column in range(columns):
        own = slice(column * members, (column + 1) * members)
        vertical[:, own, :, :, 0] = by_group[..., column]
        moves[:, own, 0, 0, column] = 1
        for member in range(members):
            rows = np.arange(conv.groups) * members + member
            total[rows, np.arange(conv.groups), column * members + member] = 1
    count = conv.groups * lanes
    convs = (
        Conv(vertical.reshape(count, width, 3, 1), groups=conv.groups),
        Conv(moves.reshape(count, 1, 1, columns), groups=count),
        Conv(total.reshape(filters, count, 1, 1)),
    )
    return replace(layer, spatial=(Branch(convs),))


def grouped_total(layer: Layer, multiple: int = 16) -> Layer:
    """Sums of 0 and 1 in as many groups as they fall into."""

    def grouped(conv: Conv) -> Conv:
        filters, lanes = conv.weight.shape[:2]
        for groups in range(filters // multiple, 1, -1):
            if filters % (groups * multiple) == 0 and lanes % (groups * multiple) == 0:
                blocks = conv.weight.reshape(groups, filters // groups, groups, lanes // groups)
                own = np.stack([blocks[group, :, group] for group in range(groups)])
                if np.count_nonzero(own) == np.count_nonzero(blocks):
                    return Conv(own.reshape(filters, lanes // groups, 1, 1), conv.bias, groups)
        return conv

    branches = tuple(
        Branch((*branch.convs[:-1], grouped(branch.convs[-1]))) if len(branch.convs) > 1 else branch
        for branch in layer.spatial
    )
    return replace(layer, spatial=branches)


def any_order(layer: Layer) -> Layer:
    """Depthwise kernels may stand in any order, so the channels in front of them need none."""
    if layer.order is None or layer.norm is not None or not all(map(_is_depthwise, layer.spatial)):
        return layer
    back = np.argsort(layer.order)
    branches = []
    for branch in layer.spatial:
        kernels, total = branch.convs
        kernels = replace(kernels, weight=kernels.weight[back])
        branches.append(Branch((kernels, replace(total, weight=total.weight[:, back]))))
    return replace(layer, order=None, spatial=tuple(branches))


def _is_depthwise(branch: Branch) -> bool:
    first = branch.convs[0]
    return len(branch.convs) == 2 and first.groups == first.weight.shape[0]


def _grouped(layer: Layer) -> Conv:
    """The one convolution that the 3x3 was before any rewrite."""
    (branch,) = layer.spatial
    (conv,) = branch.convs
    return conv


def _merged(conv: Conv, merged: int) -> Conv:
    """``merged`` neighbouring groups as one, with zeros."""
    weight, groups = conv.weight, conv.groups
    filters, width = weight.shape[:2]
    wide = np.zeros((filters, width * merged, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * (filters // groups), (group + 1) * (filters // groups))
        first = group % merged * width
        wide[rows, first : first + width] = weight[rows]
    return Conv(wide, conv.bias, groups // merged)
