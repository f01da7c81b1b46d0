from __future__ import annotations

from dataclasses import replace
from typing import Callable, Dict

import numpy as np
import pytest

from deploy_networks import answer, distance, expected, facts, lively, pictures, preprocessing
from fedclient.worker.deploy import export, rewrites
from fedclient.worker.deploy.description import Description, Layer, describe
from fedclient.worker.deploy.forms import AUTHORS, CPU, Form, rewritten
from fedspect.model.condense import condense
from fedspect.model.learned_groups import finish

LAYER_REWRITES: Dict[str, Callable[[Layer], Layer]] = {
    "fold_norm": rewrites.fold_norm,
    "dense_reduce": rewrites.dense_reduce,
    "pad_reduce": rewrites.pad_reduce,
    "dense_react": rewrites.dense_react,
    "depthwise_spatial": rewrites.depthwise_spatial,
    "merge_spatial": rewrites.merge_spatial,
    "fold after dense": lambda layer: rewrites.fold_norm(rewrites.dense_reduce(layer)),
    "dense after fold": lambda layer: rewrites.dense_reduce(rewrites.fold_norm(layer)),
}
WHOLE_REWRITES: Dict[str, Callable[[Description], Description]] = {
    "early_pools": rewrites.early_pools,
    "pooled_stem": lambda description: rewrites.pooled_stem(rewrites.early_pools(description)),
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
    exporter = export._Exporter(description, form, facts(lively(), prepared), "uint8", 9)
    return answer(exporter.part("whole", 0, 12), pixels, optimised=False)


@pytest.mark.parametrize("name", LAYER_REWRITES)
def test_a_rewrite_of_layers_keeps_the_logits(name: str) -> None:
    network, prepared = lively(), preprocessing()
    before = describe(network)
    blocks = tuple(
        replace(block, layers=tuple(LAYER_REWRITES[name](layer) for layer in block.layers))
        for block in before.blocks
    )
    pixels = pictures(prepared)
    seen = logits_of(replace(before, blocks=blocks), pixels)
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


@pytest.mark.parametrize("form", ["learned", "condensed"])
def test_silent_channels_keep_the_logits(form: str) -> None:
    network, prepared = lively(form=form), preprocessing()
    finish(network)
    before = rewritten(describe(network), replace(CPU, pad_features=0))
    padded = rewrites.pad_features(before)
    assert [layer.growth for layer in padded.blocks[0].layers] == [16]
    pixels = pictures(prepared)
    assert distance(logits_of(padded, pixels, CPU), expected(network, prepared, pixels)) < 1e-5


def test_shared_norms_without_their_gather_keep_the_logits() -> None:
    network, prepared = lively(form="learned"), preprocessing()
    finish(network)
    description = describe(network)
    blocks = tuple(
        replace(block, layers=tuple(rewrites.dense_reduce(layer) for layer in block.layers))
        for block in description.blocks
    )
    pixels = pictures(prepared)
    seen = logits_of(replace(description, blocks=blocks), pixels)
    assert distance(seen, expected(network, prepared, pixels)) < 1e-5


def test_the_cpu_form_has_the_shapes_that_the_runtime_wants() -> None:
    for block in rewritten(describe(lively()), CPU).blocks:
        for layer in block.layers:
            assert layer.norm is None and layer.scatter is None and layer.react.groups == 1
            if layer.reduce.groups > 1:
                assert layer.reduce.weight.shape[1] % 16 == 0
            for branch in layer.spatial:
                filters, width = branch.conv.weight.shape[:2]
                assert width == 1 or filters // branch.conv.groups % 16 == 0


def test_swapping_there_and_back_is_nothing() -> None:
    order, back = rewrites.swapped(12, 3), rewrites.unswapped(12, 3)
    assert order.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert order[back].tolist() == list(range(12))
