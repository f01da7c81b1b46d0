from __future__ import annotations

from pathlib import Path
from typing import Tuple

import numpy as np
import pytest
import torch

from fedspect.discriminant.analysis import solve
from fedspect.discriminant.scores import squared_distances
from fedspect.discriminant.statistics import ClassStatistics
from fedspect.errors import ModelError
from fedspect.model.base import BaseNetwork, load_base, save_base
from fedspect.model.discriminant import taps_of
from fedspect.model.levels import LevelledNetwork, freeze, head_state, load_head_state, tapped_parts
from fedspect.model.network import build_network

CLASSES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseNetwork:
    network = build_network("cdnv2-a", 5, channels=1, form="condensed", seed=1)
    folder = tmp_path_factory.mktemp("base")
    return save_base(
        folder, network, classes=list("vwxyz"), input_size=64, mean=[0.5], std=[0.25], provenance={}
    )


def solved(base: BaseNetwork) -> Tuple[LevelledNetwork, np.ndarray]:
    """A network at a closed form, and the features of the images that made it."""
    network = base.starting_network(CLASSES, seed=0, freeze_levels=None, closed_form=True).eval()
    images = torch.randn(12, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    assert network.discriminant is not None
    features = taps_of(rows(network, images), network.discriminant.whitening.in_features).numpy()
    found = solve(ClassStatistics.of(features, np.arange(12) % 3, 3), 0.3)
    tensors = {name: torch.from_numpy(values) for name, values in found.tensors().items()}
    load_head_state(network, tensors)
    np.testing.assert_allclose(
        network.discriminant.squared_distance(torch.from_numpy(features)).numpy(),
        squared_distances(found, features),
        rtol=1e-3,
    )
    np.testing.assert_allclose(
        network(images).detach().numpy(), found.linear().scores(features), rtol=1e-3, atol=1e-2
    )
    return network, features


def rows(network: LevelledNetwork, images: torch.Tensor) -> torch.Tensor:
    frozen, _ = tapped_parts(network, network.freeze_levels, 64)
    answer: torch.Tensor = frozen(images)
    return answer


def test_a_network_answers_what_its_closed_form_answers(base: BaseNetwork) -> None:
    _, features = solved(base)
    assert features.shape[1] == 832  # means and deviations of blocks 2 to 4 of model A


def test_cached_rows_give_the_same_answers_as_pictures(base: BaseNetwork) -> None:
    network, _ = solved(base)
    images = torch.randn(3, 1, 64, 64)
    frozen, head = tapped_parts(network, network.freeze_levels, 64)
    with torch.no_grad():
        torch.testing.assert_close(head(frozen(images)), network(images), rtol=1e-3, atol=1e-3)


def test_the_head_holds_the_closed_form_and_nothing_trains_it(base: BaseNetwork) -> None:
    network, _ = solved(base)
    state = head_state(network, network.freeze_levels)
    assert {name for name in state if name.startswith("discriminant.")} == set(solve_names())
    assert not any(value.requires_grad for value in network.discriminant.parameters())  # type: ignore[union-attr]


def solve_names() -> list[str]:
    found = solve(ClassStatistics.of(np.ones((2, 2)), np.array([0, 1]), 2))
    return list(found.tensors())


def test_a_network_with_a_closed_form_is_saved_and_loaded_whole(base: BaseNetwork, tmp_path: Path) -> None:
    network, _ = solved(base)
    save_base(tmp_path, network, classes=CLASSES, input_size=64, mean=[0.5], std=[0.25], provenance={})
    again = load_base(tmp_path).network(CLASSES, seed=0).eval()
    images = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(again(images), network(images))
    assert load_base(tmp_path).network(["other", "classes"], seed=0).discriminant is None


def test_without_frozen_levels_there_is_nothing_to_look_at(base: BaseNetwork) -> None:
    with pytest.raises(ModelError, match="frozen levels"):
        base.starting_network(CLASSES, seed=0, freeze_levels=0, closed_form=True)


def test_a_network_without_named_taps_is_tapped_at_its_last_frozen_level() -> None:
    network = build_network("plain-cnn", 2, channels=1, seed=0)
    freeze(network, 2)
    network.attach_discriminant(64)
    assert network.discriminant is not None
    assert network(torch.randn(2, 1, 64, 64)).abs().max() == 0
