from __future__ import annotations

from dataclasses import replace
from typing import Callable, Dict

import numpy as np
import pytest

from deploy_networks import answer, distance, expected, facts, lively, pictures, preprocessing
from fedclient.worker.deploy import export, pools, rewrites, silent, spatial
from fedclient.worker.deploy.description import Description, Layer, describe
from fedclient.worker.deploy.forms import AUTHORS, CPU, Form, each_layer, rewritten
from fedspect.model.condense import condense
from fedspect.model.learned_groups import finish

LAYER_REWRITES: Dict[str, Callable[[Layer], Layer]] = {
    "fold_norm": rewrites.fold_norm,
    "dense_reduce": rewrites.dense_reduce,
    "merge_reduce": rewrites.merge_reduce,
    "merge_reduce, four groups each": lambda layer: rewrites.merge_reduce(layer, 64),
    "dense_react": rewrites.dense_react,
    "depthwise_spatial": spatial.depthwise_spatial,
    "column_spatial": spatial.column_spatial,
    "merge_spatial": spatial.merge_spatial,
    "any_order": lambda layer: spatial.any_order(
        spatial.depthwise_spatial(rewrites.merge_reduce(rewrites.fold_norm(layer)))
    ),
    "grouped_total": lambda layer: spatial.grouped_total(spatial.column_spatial(layer)),
    "fold after dense": lambda layer: rewrites.fold_norm(rewrites.dense_reduce(layer)),
    "dense after fold": lambda layer: rewrites.dense_reduce(rewrites.fold_norm(layer)),
}
WHOLE_REWRITES: Dict[str, Callable[[Description], Description]] = {
    "early_pools": pools.early_pools,
    "pooled_stem": lambda description: pools.pooled_stem(pools.early_pools(description)),
    "ready_stem": lambda description: pools.ready_stem(pools.pooled_stem(pools.early_pools(description))),
    "ready_stem without a gather": lambda description: pools.ready_stem(
        pools.pooled_stem(pools.early_pools(each_layer(description, rewrites.dense_reduce)))
    ),
}
OPERATORS: Dict[str, Form] = {
    "depthwise affine": replace(AUTHORS, affine="depthwise"),
    "one hard-swish": replace(AUTHORS, hard_swish="one"),
    "swaps by gather": replace(AUTHORS, permute="gather"),
    "resized factors": replace(AUTHORS, excitation="resize"),
}


def logits_of(description: Description, pixels: np.ndarray, form: Form = AUTHORS) -> np.ndarray:
    """The description as it is, without a form's own rewrites, and without the runtime's."""
    prepared = preprocessing(size=pixels.shape[-1])
    graph = export.WrittenGraph(description, form, prepared.size)
    exporter = export._Exporter(graph, "cdnv2-a", form, facts(lively(), prepared), "uint8", 9, None)
    return answer(exporter.part("whole", 0, 12), pixels, optimised=False)


@pytest.mark.parametrize("name", LAYER_REWRITES)
def test_a_rewrite_of_layers_keeps_the_logits(name: str) -> None:
    network, prepared = lively(), preprocessing()
    pixels = pictures(prepared)
    seen = logits_of(each_layer(describe(network), LAYER_REWRITES[name]), pixels)
    assert distance(seen, expected(network, prepared, pixels)) < 1e-5


@pytest.mark.parametrize("size", [64, 65, 66, 67])
@pytest.mark.parametrize("name", WHOLE_REWRITES)
def test_pools_may_move_at_every_size(name: str, size: int) -> None:
    network, prepared = lively(), preprocessing(size=size)
    pixels = pictures(prepared)
    seen = logits_of(WHOLE_REWRITES[name](describe(network)), pixels)
    assert distance(seen, expected(network, prepared, pixels)) < 1e-5


@pytest.mark.parametrize("name", OPERATORS)
def test_a_choice_of_operators_keeps_the_logits(name: str) -> None:
    network, prepared = lively(), preprocessing()
    pixels = pictures(prepared)
    seen = logits_of(describe(network), pixels, OPERATORS[name])
    assert distance(seen, expected(network, prepared, pixels)) < 1e-5


def test_a_gather_goes_only_where_all_copies_of_a_channel_share_their_norm() -> None:
    learned = lively(form="learned")
    finish(learned)
    shared, own = describe(condense(learned)), describe(lively())
    assert rewrites.dense_reduce(shared.blocks[4].layers[0]).gather is None
    assert rewrites.dense_reduce(own.blocks[4].layers[0]).gather is not None


@pytest.mark.parametrize(
    ("architecture", "form"), [("cdnv2-a", "learned"), ("cdnv2-a", "condensed"), ("cdnv2-b", "condensed")]
)
def test_silent_channels_keep_the_logits(architecture: str, form: str) -> None:
    network, prepared = lively(architecture, form=form), preprocessing()
    finish(network)
    before = rewritten(describe(network), replace(CPU, pad_features=0, ready_stem=False))
    padded = silent.pad_features(before)
    assert all(layer.growth % 16 == 0 and layer.older % 16 == 0 for layer in padded.blocks[0].layers)
    pixels = pictures(prepared)
    wanted = expected(network, prepared, pixels)
    for description in (padded, each_layer(padded, spatial.grouped_total)):
        assert distance(logits_of(description, pixels, CPU), wanted) < 1e-5


def test_between_blocks_no_more_channels_are_silent_than_a_multiple_needs() -> None:
    padded = rewritten(describe(lively("cdnv2-b")), CPU)
    assert [block.layers[0].older for block in padded.blocks] == [16, 32, 80, 224, 608]


def test_groups_with_inputs_in_common_are_merged_and_gather_each_once() -> None:
    learned = lively(form="learned")
    finish(learned)
    layer = describe(condense(learned)).blocks[4].layers[-1]
    alone, merged = rewrites.merge_reduce(layer, 16), rewrites.merge_reduce(layer, 64)
    assert (alone.reduce.groups, merged.reduce.groups) == (8, 4)
    for seen in (alone, merged):
        assert (
            seen.gather is not None and len(seen.gather) == seen.reduce.weight.shape[1] * seen.reduce.groups
        )
    assert alone.reduce.weight.shape[1] % 16 == 0 and merged.reduce.weight.shape[1] % 64 == 0

    def used(layer: Layer) -> int:
        by_group = layer.reduce.weight.reshape(layer.reduce.groups, -1, layer.reduce.weight.shape[1])
        return int(np.count_nonzero(by_group.any(1)))

    assert used(alone) == layer.older and used(merged) < layer.older


def test_sums_fall_into_groups_where_groups_of_filters_do() -> None:
    layer = spatial.column_spatial(describe(lively()).blocks[4].layers[0])
    vertical, moves, total = spatial.grouped_total(layer).spatial[0].convs
    assert vertical.weight.shape == (256, 32, 3, 1) and moves.weight.shape == (256, 1, 1, 3)
    assert total.groups == 4 and total.weight.shape == (64, 64, 1, 1)


def test_shared_norms_without_their_gather_keep_the_logits() -> None:
    network, prepared = lively(form="learned"), preprocessing()
    finish(network)
    pixels = pictures(prepared)
    seen = logits_of(each_layer(describe(network), rewrites.dense_reduce), pixels)
    assert distance(seen, expected(network, prepared, pixels)) < 1e-5


@pytest.mark.parametrize("architecture", ["cdnv2-a", "cdnv2-b", "cdnv2-c"])
def test_the_cpu_form_has_the_shapes_that_the_runtime_wants(architecture: str) -> None:
    for block in rewritten(describe(lively(architecture)), CPU).blocks:
        for layer in block.layers:
            assert layer.norm is None and layer.scatter is None and layer.react.groups == 1
            assert layer.older % 16 == 0 and layer.growth % 16 == 0
            convs = [conv for branch in layer.spatial for conv in branch.convs]
            for conv in [layer.reduce, *convs]:
                filters, width = conv.weight.shape[:2]
                assert width == 1 or conv.groups == 1 or (width % 16, filters // conv.groups % 16) == (0, 0)


def test_swapping_there_and_back_is_nothing() -> None:
    order, back = rewrites.swapped(12, 3), rewrites.unswapped(12, 3)
    assert order.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert order[back].tolist() == list(range(12))
