"""Peers answer as torchvision's own networks do, level by level, and can be frozen, federated and turned grey."""

from __future__ import annotations

import pytest
import torch

from fedspect.errors import ModelError
from fedspect.model import build_network, freeze, head_state
from fedspect.model.levels import frozen_part, head_part

torchvision = pytest.importorskip("torchvision")
NAMES = [
    "mobilenet-v3-small",
    "resnet18",
    "densenet121",
    "squeezenet1-0",
    "shufflenet-v2-x1-0",
    "convnext-tiny",
]


@pytest.mark.parametrize("name", NAMES)
def test_levels_give_what_torchvision_gives(name):
    ours = build_network(name, 5, seed=3).eval()
    theirs = torchvision.models.get_model(name.replace("-", "_"), weights=None, num_classes=5).eval()
    weights = iter(ours.state_dict().values())
    theirs.load_state_dict({key: next(weights) for key in theirs.state_dict()})
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(pictures), theirs(pictures), atol=1e-6)


@pytest.mark.parametrize("name", ["plain-cnn", "mobilenet-v3-small", "resnet18", "convnext-tiny"])
def test_the_two_parts_make_the_whole_at_the_default_level(name):
    network = build_network(name, 4, channels=1).eval()
    freeze(network, network.default_freeze_levels)
    pictures = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    if network.default_freeze_levels:
        features = frozen_part(network, network.freeze_levels)(pictures)
        with torch.no_grad():
            split, whole = head_part(network, network.freeze_levels)(features), network(pictures)
        assert torch.allclose(split, whole, atol=1e-5)
    assert 0 < len(head_state(network, network.freeze_levels)) <= len(network.state_dict())


def test_a_network_of_one_level_cannot_be_frozen():
    with pytest.raises(ModelError, match="0 to 0"):
        freeze(build_network("shufflenet-v2-x1-0", 4), 1)


def test_the_classifier_of_a_peer_is_replaced():
    network = build_network("mobilenet-v3-small", 4)
    network.replace_classifier(9, seed=1)
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 9)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ModelError, match="mobilenet-v3-small"):
        build_network("mobilenet-v3-smal", 4)


def test_the_same_seed_gives_the_same_weights():
    one, two, other = (build_network("resnet18", 4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])
