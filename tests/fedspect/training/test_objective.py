from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedspect.training.objective import ProximalTerm, build_optimizer, class_weights, cross_entropy
from fedspect.training.sampling import epoch_batches, learning_rate_share
from fedspect.training.settings import TrainingSettings


def test_balanced_weights_are_the_inverse_counts_and_one_on_average_over_pictures() -> None:
    weights = class_weights([6, 3, 0, 1], "balanced")
    assert weights is not None
    # 10 pictures, 3 classes with pictures: n / (3 n_k)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 1.0, 10 / 3])
    assert class_weights([6, 3, 0, 1], "none") is None


def test_root_weights_are_between_none_and_balanced() -> None:
    weights = class_weights([16, 4], "root")
    assert weights is not None
    # 1/4 and 1/2, scaled so that 16 a + 4 b = 20
    assert weights.tolist() == pytest.approx([20 / 6 / 4, 20 / 6 / 2])


def test_the_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    labels = torch.tensor([1, 0])
    # -log(3/4) and -log(1/2)
    assert float(cross_entropy(logits, labels, None, 0.0)) == pytest.approx(
        (math.log(4 / 3) + math.log(2)) / 2
    )
    weights = torch.tensor([3.0, 1.0])
    assert float(cross_entropy(logits, labels, weights, 0.0)) == pytest.approx(
        (math.log(4 / 3) + 3 * math.log(2)) / 2
    )
    # smoothing 0.2 over two classes: 0.9 of the truth, 0.1 of the other
    assert float(cross_entropy(logits[:1], labels[:1], None, 0.2)) == pytest.approx(
        0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    )


def test_the_proximal_pull_adds_mu_times_the_distance() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    parameter.grad = torch.tensor([10.0, 10.0])
    pull = ProximalTerm({"w": parameter}, {"w": torch.tensor([0.0, 4.0]), "running_mean": torch.ones(2)}, 0.5)
    pull.add_to_gradients()
    assert parameter.grad.tolist() == [10.5, 9.0]


def test_an_anchor_is_copied_when_the_round_begins() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    pull = ProximalTerm({"w": parameter}, {"w": parameter.detach()}, 1.0)
    with torch.no_grad():
        parameter.add_(3.0)
    parameter.grad = torch.zeros(2)
    pull.add_to_gradients()
    assert parameter.grad.tolist() == [3.0, 3.0]


def test_weight_decay_leaves_biases_and_norms_alone() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for kind in ("adamw", "sgd"):
        settings = TrainingSettings(optimizer=kind, weight_decay=0.1)  # type: ignore[arg-type]
        decaying, others = build_optimizer(dict(module.named_parameters()), settings, 0.1).param_groups
        assert decaying["weight_decay"] == 0.1 and len(decaying["params"]) == 1
        assert others["weight_decay"] == 0.0 and len(others["params"]) == 3


@given(
    count=st.integers(0, 300),
    size=st.integers(1, 70),
    epoch=st.integers(0, 10**6),
    seed=st.integers(0, 2**62),
)
def test_an_epoch_shows_each_picture_once_in_batches_of_nearly_equal_size(
    count: int, size: int, epoch: int, seed: int
) -> None:
    batches = epoch_batches(count, size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(count))
    sizes = [len(batch) for batch in batches]
    if sizes:
        assert 0 < max(sizes) <= size and max(sizes) - min(sizes) <= 1
        assert len(sizes) == math.ceil(count / size)


def test_orders_follow_from_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list:
        return np.concatenate(epoch_batches(50, 8, seed=seed, epoch=epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3) and order(1, 2) != order(2, 2)


def test_the_step_size_rises_then_follows_half_a_cosine() -> None:
    def share(epoch: float, warmup: float = 2.0, final: float = 0.1) -> float:
        return learning_rate_share(epoch, 10, warmup_epochs=warmup, final_share=final)

    assert share(0) == pytest.approx(0.1) and share(1) == pytest.approx(0.55)
    assert (
        share(2) == pytest.approx(1.0) and share(6) == pytest.approx(0.55) and share(10) == pytest.approx(0.1)
    )
    assert share(12) == pytest.approx(0.1)
    assert share(0, warmup=0.0) == 1.0 and share(7, final=1.0) == 1.0


def test_a_short_training_warms_up_for_half_of_it_at_most() -> None:
    assert learning_rate_share(0.5, 1, warmup_epochs=5, final_share=0.0) == pytest.approx(1.0)
