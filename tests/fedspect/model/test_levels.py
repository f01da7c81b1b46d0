"""Levels: the fold, what freezing means, and what of a network travels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedspect.errors import CheckpointError, InputSizeError, ModelError
from fedspect.model import (
    architectures,
    batch_norm_statistics,
    build_network,
    cut_level,
    freeze,
    frozen_part,
    head_part,
    head_state,
    load_head_state,
)

TWELVE = [
    "initial",
    "block1",
    "transition1",
    "block2",
    "transition2",
    "block3",
    "transition3",
    "block4",
    "transition4",
    "block5",
    "hidden",
    "classifier",
]


def network_a(**options):
    return build_network("cdnv2-a", 6, **{"form": "condensed", **options})


def pictures(count: int = 4, channels: int = 3, height: int = 64, width: int = 64):
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1))


def copies(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("architecture", ["cdnv2-a", "cdnv2-b", "cdnv2-c"])
def test_there_are_twelve_levels(architecture):
    network = build_network(architecture, 6, form="condensed")
    assert [name for name, _ in network.levels()] == TWELVE
    assert network.default_freeze_levels == 8


@pytest.mark.parametrize("architecture", ["cdnv2-a", "plain-cnn"])
def test_forward_is_the_fold_of_the_levels(architecture):
    network = build_network(architecture, 6).eval()
    features = pictures()
    for _, level in network.levels():
        features = level(features)
    assert torch.equal(features, network(pictures()))
    assert features.shape == (4, 6)


@pytest.mark.parametrize("form", ["learned", "condensed"])
@pytest.mark.parametrize("freeze_levels", [0, 3, 8, 11])
def test_frozen_levels_stand_still_to_the_last_tensor_and_the_others_move(freeze_levels, form):
    network = network_a(form=form, channels=1)
    freeze(network, freeze_levels)
    network.train()
    before = copies(network)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        loss = nn.functional.cross_entropy(network(pictures(channels=1)), torch.tensor([0, 1, 2, 3]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    frozen = {name for name, _ in network.levels()[:freeze_levels]}
    for key, value in network.state_dict().items():
        same = torch.equal(value, before[key])
        if key.partition(".")[0] in frozen or key.endswith((".index", ".kept")):
            assert same, f"{key} moved"
        else:
            assert not same, f"{key} stood still"


def test_training_mode_leaves_frozen_levels_in_evaluation_mode():
    network = network_a()
    freeze(network, 8)
    network.eval().train()
    for place, (_, level) in enumerate(network.levels()):
        assert all(module.training == (place >= 8) for module in level.modules())


def test_freezing_fewer_later_sets_levels_free_again():
    network = network_a().train()
    freeze(network, 8)
    freeze(network, 2)
    assert [level.training for _, level in network.levels()] == [False] * 2 + [True] * 10
    assert all(value.requires_grad for value in network.block2.parameters())
    assert not network.initial.weight.requires_grad


@pytest.mark.parametrize("levels", [-1, 12, 99])
def test_freezing_all_or_more_is_refused_with_the_levels_named(levels):
    with pytest.raises(ModelError, match=r"0 to 11 .*9 transition4.*12 classifier"):
        freeze(network_a(), levels)


def test_the_cut_moves_past_levels_that_hold_nothing():
    network = network_a()
    assert [cut_level(network, levels) for levels in range(12)] == [0, 1, 3, 3, 5, 5, 7, 7, 9, 9, 10, 11]


@pytest.mark.parametrize("freeze_levels", [0, 1, 8])
def test_frozen_part_and_head_part_make_the_whole(freeze_levels):
    network = network_a()
    freeze(network, freeze_levels)
    network.eval()
    features = frozen_part(network, freeze_levels)(pictures())
    assert torch.equal(head_part(network, freeze_levels)(features), network(pictures()))
    assert not features.requires_grad


def test_features_at_the_cut_are_small():
    assert frozen_part(network_a(), 8)(pictures(2, height=224, width=224)).shape == (2, 288, 7, 7)


def test_the_frozen_part_never_trains():
    network = network_a()
    part = frozen_part(network, 8).train()
    before = copies(network)
    part(pictures())
    assert not part.training
    assert equal(before, copies(network))


@pytest.mark.parametrize("form", ["learned", "condensed"])
def test_the_head_holds_parameters_and_statistics_and_nothing_else(form):
    network = network_a(form=form)
    state = head_state(network, 8)
    assert {key.partition(".")[0] for key in state} == {"block5", "hidden", "classifier"}
    parameters = {name for name, _ in network.named_parameters()}
    others = set(state) - parameters
    assert others == set(batch_norm_statistics(state))
    assert all(key.endswith(("running_mean", "running_var")) for key in others)
    assert "block5.norm.running_var" in others
    assert set(head_state(network, 0)) >= parameters
    assert list(state) == [key for key in network.state_dict() if key in state]


def test_a_condensed_head_is_small_enough_to_travel():
    numbers = sum(value.numel() for value in head_state(network_a(), 8).values())
    assert 1.1e6 < numbers < 1.2e6


def test_a_head_can_be_carried_to_another_network():
    source, target = network_a(seed=1), network_a(seed=1)
    with torch.no_grad():
        for value in head_state(source, 8).values():
            value.add_(0.25)
    load_head_state(target, {key: value.clone() for key, value in head_state(source, 8).items()})
    assert equal(copies(source), copies(target))


def test_a_head_without_statistics_leaves_them_as_they_are():
    network = network_a()
    state = {key: value + 1 for key, value in head_state(network, 8).items()}
    statistics = batch_norm_statistics(state)
    before = copies(network)
    load_head_state(network, {key: value for key, value in state.items() if key not in statistics})
    after = copies(network)
    assert all(torch.equal(after[key], before[key]) for key in statistics)
    assert torch.equal(after["classifier.bias"], before["classifier.bias"] + 1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classifier.wait", torch.zeros(6), "classifier.wait"),
        ("classifier.bias", torch.zeros(7), r"classifier.bias.*\(7,\).*\(6,\)"),
        ("initial.weight", torch.zeros(16, 3, 3, 3), "initial.weight"),
        ("block5.norm.num_batches_tracked", torch.zeros(()), "num_batches_tracked"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_by_name_and_changes_nothing(key, value, message):
    network = network_a()
    freeze(network, 8)
    before = copies(network)
    with pytest.raises(CheckpointError, match=message):
        load_head_state(network, {"hidden.linear.bias": torch.ones(828), key: value})
    assert equal(before, copies(network))


def test_the_classifier_is_replaced_alone_and_by_seed():
    network, twin = network_a(), network_a()
    before = copies(network)
    network.replace_classifier(3, seed=5)
    twin.replace_classifier(3, seed=5)
    assert network.num_classes == 3
    assert network.eval()(pictures()).shape == (4, 3)
    assert torch.equal(network.classifier.weight, twin.classifier.weight)
    twin.replace_classifier(3, seed=6)
    assert not torch.equal(network.classifier.weight, twin.classifier.weight)
    after = copies(network)
    rest = [key for key in before if not key.startswith("classifier")]
    assert all(torch.equal(before[key], after[key]) for key in rest)


def test_a_seed_gives_one_network_and_disturbs_no_other_numbers():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first, second, third = network_a(seed=1), network_a(seed=1), network_a(seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert equal(copies(first), copies(second))
    assert not torch.equal(first.initial.weight, third.initial.weight)


@pytest.mark.parametrize("form", ["learned", "condensed"])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 64, 64), (3, 65, 97), (1, 130, 64)])
def test_any_size_from_64_and_one_or_three_channels(form, channels, height, width):
    network = network_a(form=form, channels=channels).eval()
    with torch.no_grad():
        assert network(pictures(2, channels, height, width)).shape == (2, 6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 3, 63, 200), "200 x 63"), ((1, 1, 64, 64), r"3 channel"), ((3, 64, 64), r"batch of shape")],
)
def test_pictures_that_do_not_fit_are_refused_with_their_size(shape, message):
    with pytest.raises(InputSizeError, match=message):
        network_a()(torch.zeros(shape))


def test_an_unknown_architecture_gets_the_nearest_known_one():
    with pytest.raises(ModelError, match="did you mean cdnv2-a"):
        build_network("cdnv2a", 6)


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"channels": 2}, {"form": "folded"}])
def test_impossible_networks_are_refused(options):
    with pytest.raises(ModelError):
        build_network("cdnv2-a", options.pop("num_classes", 6), **options)


def test_our_architectures_come_first():
    assert architectures()[:4] == ["cdnv2-a", "cdnv2-b", "cdnv2-c", "plain-cnn"]
