"""Sizes agree with the paper's table (Yang et al., CVPR 2021, table 1), in both forms."""

from __future__ import annotations

import pytest

from fedspect.model import build_network
from fedspect.model.complexity import count

PUBLISHED = {"cdnv2-a": (2.0, 46), "cdnv2-b": (3.6, 146), "cdnv2-c": (6.1, 309)}  # millions


@pytest.mark.parametrize("form", ["learned", "condensed"])
@pytest.mark.parametrize("architecture", PUBLISHED)
def test_parameters_and_operations_are_the_published_ones(architecture, form):
    size = count(build_network(architecture, 1000, form=form))
    parameters, multiply_adds = PUBLISHED[architecture]
    assert size.parameters / 1e6 == pytest.approx(parameters, abs=0.1)
    assert round(size.operations / 1e6) == multiply_adds


def test_a_plain_network_is_counted_as_by_hand():
    size = count(build_network("plain-cnn", 10, channels=1), 64)
    products = 9 * (1 * 32 * 64**2 + 32 * 64 * 32**2 + 64 * 128 * 16**2 + 128 * 128 * 8**2 + 128 * 256 * 4**2)
    assert size.multiply_adds == products + 16 * 256 * 256 + 256 * 10


def test_products_are_counted_level_by_level():
    network = build_network("plain-cnn", 10, channels=1)
    size = count(network, 64)
    assert list(size.by_level) == [name for name, _ in network.levels()]
    assert sum(size.by_level.values()) == size.multiply_adds
    first, last = network.levels()[0][0], network.levels()[-1][0]
    assert size.by_level[first] == 9 * 32 * 64**2
    assert size.by_level[last] == 256 * 10


def test_counting_leaves_the_network_as_it_was():
    network = build_network("cdnv2-a", 6).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    count(network, 64)
    assert network.training
    assert all((before[key] == value).all() for key, value in network.state_dict().items())
