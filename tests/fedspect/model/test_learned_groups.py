"""Learned groups: what is dropped, when, and what it does to the answers. Numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedspect.model import build_network, group_lasso, set_progress
from fedspect.model.learned_groups import (
    LearnedGroupConv,
    SparseFeatureReactivation,
    is_finished,
    kept_channels,
    learned_groups,
)


def group_conv(weight) -> LearnedGroupConv:
    weight = torch.tensor(weight)
    layer = LearnedGroupConv(weight.shape[1], weight.shape[0], groups=2, activation=nn.Identity())
    layer.conv.weight.data.copy_(weight[:, :, None, None])
    return layer


@pytest.mark.parametrize(
    ("progress", "stage"),
    [(0.0, 0), (0.07, 0), (1 / 14, 1), (0.14, 1), (0.25, 3), (0.49, 6), (0.5, 7), (0.9, 7), (1.0, 7)],
)
def test_each_seventh_of_the_first_half_drops_an_eighth(progress, stage):
    layer = LearnedGroupConv(16, 8, groups=8, activation=nn.Identity())
    set_progress(layer, progress)
    assert layer.stage == stage
    assert layer.kept.sum(1).tolist() == [16 - 2 * stage] * 8


def test_dropping_is_told_and_adds_up_and_never_comes_back():
    layer = LearnedGroupConv(16, 8, groups=8, activation=nn.Identity())
    told = [set_progress(layer, step / 40) for step in range(21)]
    assert sum(told) == 16 * 8 * 7 // 8
    kept = layer.kept.clone()
    assert set_progress(layer, 0.1) == 0
    assert torch.equal(layer.kept, kept)


def test_a_group_of_filters_keeps_the_inputs_that_it_weighs_most():
    # Filters 0 and 2 are group 0, filters 1 and 3 are group 1.
    layer = group_conv([[1.0, -5, 0, 1], [0, 1, 1, 9], [1, -5, 4, 1], [0, 1, -9, 9]])
    set_progress(layer, 0.5)
    assert layer.kept.tolist() == [[False, True, True, False], [False, False, True, True]]
    assert kept_channels(layer).tolist() == [[1, 2], [2, 3]]


def test_a_group_of_inputs_keeps_the_older_channels_that_it_refreshes_most():
    layer = SparseFeatureReactivation(4, 2, groups=2, activation=nn.Identity())
    # Inputs 0 and 2 are group 0: together they reach channel 1 most, though input 0 alone prefers channel 0.
    layer.conv.weight.data.copy_(torch.tensor([[2.0, 3, 0, 3], [1.0, 1, 4, 1]])[:, :, None, None])
    set_progress(layer, 0.5)
    assert layer.kept.tolist() == [[False, True], [True, False]]
    older, new = torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 10, 100, 1000]).view(1, 4, 1, 1)
    answer = layer.eval()(older, new).flatten() * (1 + layer.norm.eps) ** 0.5
    assert answer.tolist() == pytest.approx([3 * 10 + 3 * 1000, 1 + 4 * 100])


def test_what_is_dropped_neither_answers_nor_learns():
    layer = group_conv([[1.0, -5, 0, 1], [0, 1, 1, 9], [1, -5, 4, 1], [0, 1, -9, 9]]).eval()
    set_progress(layer, 0.5)
    features = torch.ones(1, 4, 1, 1)
    answer = layer(features)
    answer.sum().backward()
    scale = (1 + layer.norm.eps) ** 0.5
    assert (answer.flatten() * scale).tolist() == pytest.approx([-5, 10, -1, 0])
    assert torch.equal(layer.conv.weight.grad.flatten(1) != 0, layer.mask().flatten(1) != 0)


def test_lasso_is_the_sum_of_lengths_and_ends_with_the_dropping():
    layer = group_conv([[3.0, 0, 0, 0], [0, 0, 0, 0], [4.0, 0, 0, 0], [0, 0, 12, 0]])
    assert group_lasso(layer).item() == pytest.approx(5 + 12 + 6 * 1e-3)
    group_lasso(layer).backward()
    slope = layer.conv.weight.grad.flatten(1)
    assert torch.isfinite(slope).all()
    assert slope[:, 0].tolist() == pytest.approx([0.6, 0, 0.8, 0])
    set_progress(layer, 0.5)
    assert group_lasso(layer).item() == 0


def test_a_network_drops_everywhere_and_is_finished_at_half_time():
    network = build_network("cdnv2-a", 6)
    layers = list(learned_groups(network))
    assert len(layers) == 2 * (1 + 1 + 4 + 6 + 8)
    weights = sum(layer.conv.weight.numel() for layer in layers)
    dropped = [set_progress(network, progress) for progress in (0.0, 0.3, 0.5, 1.0)]
    assert dropped[0] == dropped[3] == 0
    assert sum(dropped) == weights * 7 // 8
    assert is_finished(network)


def test_networks_without_learned_groups_have_nothing_to_drop():
    network = build_network("cdnv2-a", 6, form="condensed")
    assert set_progress(network, 1.0) == 0
    assert group_lasso(network).item() == 0
