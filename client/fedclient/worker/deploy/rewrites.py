"""Rewrites of a description: each changes how something is computed, none changes what.

A rewrite takes a layer (or the whole description) and gives a new one; ``forms`` says which are applied for a
target. Each has its own test that the logits stay.

Shapes: C older channels, F filters of the first 1x1, S slots (= C), G groups.
"""

from __future__ import annotations

from dataclasses import replace
from typing import List, Optional, Set, Tuple

import numpy as np

from fedclient.worker.deploy.description import Affine, Conv, Layer


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


def merge_reduce(layer: Layer, multiple: int = 16) -> Layer:
    """Groups of the first 1x1 share their inputs, each gathered once, until they have ``multiple`` filters.

    Groups that have most inputs in common go together. Inputs of weight zero fill each up to a multiple as well:
    ONNX Runtime keeps grouped convolutions in its blocked layout only then.

    """
    if layer.gather is None or layer.reduce.groups == 1:
        return layer
    groups, width = layer.reduce.groups, layer.reduce.weight.shape[1]
    members = layer.reduce.weight.shape[0] // groups
    merged = merges(groups, members, multiple)
    copies = list(zip(layer.gather.tolist(), layer.ready.scale.tolist(), layer.ready.shift.tolist()))
    inputs = [copies[group * width : (group + 1) * width] for group in range(groups)]
    sets = _alike([set(chosen) for chosen in inputs], merged)
    unions = [sorted({copy for group in chosen for copy in inputs[group]}) for chosen in sets]
    wide = max(len(union) for union in unions)
    wide += -wide % multiple
    weight = np.zeros((groups * members, wide, 1, 1))
    gathered: List[Tuple[int, float, float]] = []
    for place, (chosen, union) in enumerate(zip(sets, unions)):
        for row, group in enumerate(chosen, place * merged):
            columns = [union.index(copy) for copy in inputs[group]]
            filters = layer.reduce.weight[group * members : (group + 1) * members]
            weight[row * members : (row + 1) * members, columns] = filters
        gathered += union + [(union[0][0], 0.0, 0.0)] * (wide - len(union))
    before = np.concatenate([group * members + np.arange(members) for chosen in sets for group in chosen])
    bias = None if layer.reduce.bias is None else layer.reduce.bias[before]
    order = np.argsort(before)
    if layer.reduce_rows:
        order = order[swapped(len(order), layer.reduce_rows)]
    return replace(
        layer,
        gather=np.array([channel for channel, _, _ in gathered]),
        ready=Affine(np.array([copy[1] for copy in gathered]), np.array([copy[2] for copy in gathered])),
        reduce=Conv(weight, bias, groups // merged),
        reduce_rows=0,
        order=order,
    )


def dense_react(layer: Layer) -> Layer:
    """The reactivation as one dense 1x1 with zeros: slots are added to their channels in the weights."""
    if layer.scatter is None:
        return layer
    weight = spread(layer.react)
    order = unswapped(weight.shape[1], layer.react_rows)
    rows = np.zeros((layer.older, weight.shape[1]))
    np.add.at(rows, layer.scatter, weight[:, :, 0, 0])
    return replace(layer, react=Conv(rows[:, order, None, None]), react_rows=0, scatter=None)


def merges(groups: int, members: int, multiple: int) -> int:
    """How many groups of so many members make a multiple; all of them if none do."""
    fitting = (count for count in range(1, groups) if groups % count == 0 and members * count % multiple == 0)
    return next(fitting, groups)


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


def _alike(inputs: List[Set[Tuple[int, float, float]]], merged: int) -> List[List[int]]:
    """Groups in sets of ``merged``: each next one is the one with most in common with its set."""
    left, sets = list(range(len(inputs))), []
    while left:
        chosen = [left.pop(0)]
        union = set(inputs[chosen[0]])
        while len(chosen) < merged:
            best = max(left, key=lambda group: len(union & inputs[group]))
            left.remove(best)
            chosen.append(best)
            union |= inputs[best]
        sets.append(chosen)
    return sets


def _common_norm(layer: Layer) -> Optional[Affine]:
    """The norm by older channel, if all copies of each agree; channels that nobody gathers get zeros."""
    scale, shift = np.zeros(layer.older), np.zeros(layer.older)
    scale[layer.gather], shift[layer.gather] = layer.ready.scale, layer.ready.shift
    same = np.array_equal(scale[layer.gather], layer.ready.scale)
    return Affine(scale, shift) if same and np.array_equal(shift[layer.gather], layer.ready.shift) else None
