"""Which rewrites and which operators a target gets. A form is a choice by measurement, never by belief.

``benchmarks/deploy_graph.py`` races the forms on a CPU; on a device with TensorRT let the device measure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Tuple

from fedclient.worker.deploy import pools, rewrites, silent, spatial
from fedclient.worker.deploy.description import Description, Layer
from fedspect.errors import SettingsError


@dataclass(frozen=True)
class Form:
    """The choices that make a graph; blocks are numbered from 1."""

    name: str
    fold_norms: bool = True
    """The norm before each 3x3 goes into the 1x1 before it."""
    dense_reduce: Tuple[int, ...] = (1, 2, 3, 4, 5)
    """Blocks whose learned group convolutions are dense 1x1 convolutions; elsewhere they stay in groups."""
    merge_reduce: int = 0
    """Elsewhere groups share inputs until each has that many filters, and inputs by the same multiple (0: not)."""
    dense_react: bool = True
    """Reactivations are dense 1x1 convolutions, so that no channel is permuted."""
    depthwise_spatial: int = 0
    """3x3 convolutions are depthwise ones and a sum where a group has at most so many filters."""
    column_spatial: int = 0
    """Otherwise they are three columns, moved and summed, where a group has at most so many filters."""
    merge_spatial: int = 0
    """Elsewhere groups of the 3x3 are merged until each has that many filters (0: left alone)."""
    pad_features: int = 0
    """New features are filled up with silent channels to a multiple of this (needs ``dense_react``)."""
    early_pools: bool = True
    """Transitions' pools before the last sum, and the stem's pool in a convolution."""
    ready_stem: bool = False
    """The first leading norm goes into the stem (needs ``early_pools``)."""
    affine: str = "batchnorm"
    """A leading scale and shift: "batchnorm", or "depthwise": a depthwise 1x1 convolution where channels come in
    sixteens (ONNX Runtime's blocked layout takes no others)."""
    hard_swish: str = "one"
    """"one" operator, or "parts" (add, clip, divide, multiply) where the runtime lacks it."""
    permute: str = "gather"
    """Channel swaps by "gather" or "transpose", scatters by "gather" or (with "transpose") a matrix."""
    excitation: str = "broadcast"
    """Factors are "broadcast" over the picture, or "resize"d to it first."""


AUTHORS = Form(
    "authors",
    fold_norms=False,
    dense_reduce=(),
    dense_react=False,
    early_pools=False,
    hard_swish="parts",
    permute="transpose",
)
"""The authors' converted form: index_select, grouped 1x1, channel shuffle, permutation by matrix product."""

MASKED = Form("masked", fold_norms=False, early_pools=False, hard_swish="parts")
"""As it was trained before condensing: dense 1x1 convolutions, most of whose weights are zero."""

CPU = Form(
    "cpu",
    dense_reduce=(1,),
    merge_reduce=16,
    depthwise_spatial=2,
    column_spatial=16,
    pad_features=16,
    ready_stem=True,
    affine="depthwise",
    excitation="resize",
)
"""For ONNX Runtime on a CPU, whose blocked layout wants channels in sixteens."""

TENSORRT = Form("tensorrt", merge_spatial=16)
"""For tensor cores: few and large nodes, no permutation. Untried on a device."""

TORCH = Form("torch")
"""No choices: as torch exports it, which is what networks without a hand-written graph get."""

FORMS: Dict[str, Form] = {form.name: form for form in (AUTHORS, MASKED, CPU, TENSORRT, TORCH)}


def form_names() -> List[str]:
    """All forms by name."""
    return list(FORMS)


def form_named(name: str) -> Form:
    """A form by name; raises ``SettingsError`` for an unknown one."""
    if name not in FORMS:
        raise SettingsError("no such form of a deploy graph", seen=name, accepted=", ".join(FORMS))
    return FORMS[name]


def rewritten(description: Description, form: Form) -> Description:
    """The description with the form's rewrites applied; the same function."""
    description = each_layer(description, lambda layer: _layer(layer, form))
    if form.pad_features:
        description = silent.pad_features(description, form.pad_features)
        description = each_layer(description, spatial.grouped_total)
    if form.early_pools:
        description = pools.pooled_stem(pools.early_pools(description))
    return pools.ready_stem(description) if form.ready_stem else description


def each_layer(description: Description, rewrite: Callable[[Layer], Layer]) -> Description:
    """The description with every layer rewritten."""
    blocks = [replace(block, layers=tuple(map(rewrite, block.layers))) for block in description.blocks]
    return replace(description, blocks=tuple(blocks))


def _layer(layer: Layer, form: Form) -> Layer:
    if form.fold_norms:
        layer = rewrites.fold_norm(layer)
    if layer.block in form.dense_reduce:
        layer = rewrites.dense_reduce(layer)
    elif form.merge_reduce:
        layer = rewrites.merge_reduce(layer, form.merge_reduce)
    if form.dense_react:
        layer = rewrites.dense_react(layer)
    members = spatial.filters_in_a_group(layer)
    if members <= form.depthwise_spatial:
        layer = spatial.any_order(spatial.depthwise_spatial(layer))
    elif members <= form.column_spatial:
        layer = spatial.column_spatial(layer)
    elif form.merge_spatial:
        layer = spatial.merge_spatial(layer, form.merge_spatial)
    return layer
