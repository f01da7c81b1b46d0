"""A step in half precision: what a scaler does to gradients must not be seen in the weights."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, List

import pytest
import torch
from torch import Tensor, nn

from fedspect.data.pictures import CheckedPicture
from fedspect.training import steps as room
from fedspect.training.settings import TrainingSettings
from fedspect.training.steps import Hooks, Steps
from training_pictures import small_network, small_trainer

SCALE = 2.0**16  # a power of two changes no digit of a gradient


class Scaler:
    """Scales as torch's does on a GPU, and skips the steps that it is told to."""

    def __init__(self, skips: int = 0) -> None:
        self.skips = skips
        self.updates = 0

    def scale(self, loss: Tensor) -> Tensor:
        return loss * SCALE

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad /= SCALE

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.updates >= self.skips:
            optimizer.step()

    def update(self) -> None:
        self.updates += 1


def trained(scaler: Any, monkeypatch: pytest.MonkeyPatch) -> Dict[str, Tensor]:
    """The weights after three steps in which the gradient is both pulled back (FedProx) and clipped."""
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    random = torch.Generator().manual_seed(0)
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    if scaler is not None:
        monkeypatch.setattr(room, "gradient_scaler", lambda *, enabled: scaler)
        monkeypatch.setattr(room, "precision", lambda *_, **__: contextlib.nullcontext())
    steps = Steps(
        module,
        parameters,
        TrainingSettings(optimizer="sgd", gradient_clip=0.5, device="cpu"),
        counts=[4, 4, 4],
        anchor={name: torch.zeros_like(value) for name, value in parameters.items()},
        learning_rate=0.1,
        proximal_mu=0.5,
        total_epochs=1,
        hooks=Hooks(),
        half=scaler is not None,
    )
    for step in range(3):
        inputs = torch.randn(12, 4, generator=random)
        steps.step(inputs, torch.arange(12) % 3, 0.5 + 0.1 * step)
    return {name: value.detach().clone() for name, value in parameters.items()}


def test_gradients_are_unscaled_before_they_are_pulled_back_and_clipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, scaler = trained(None, monkeypatch), Scaler()
    scaled = trained(scaler, monkeypatch)
    assert scaler.updates == 3
    assert all(torch.equal(value, scaled[name]) for name, value in plain.items())


def test_a_step_that_the_scaler_skips_moves_nothing_and_the_next_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    still, moved = trained(Scaler(skips=3), monkeypatch), trained(Scaler(skips=2), monkeypatch)
    assert any(not torch.equal(value, moved[name]) for name, value in still.items())
    first = trained(Scaler(skips=99), monkeypatch)
    assert all(torch.equal(value, first[name]) for name, value in still.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("freeze_levels", [0, 8])
def test_half_precision_on_a_gpu_learns_what_single_precision_learns(
    pictures: List[CheckedPicture], others: List[CheckedPicture], freeze_levels: int
) -> None:
    right = []
    for half in (False, True):
        trainer = small_trainer(
            small_network(), freeze_levels=freeze_levels, device="cuda", mixed_precision=half
        )
        report = trainer.fit(pictures, epochs=10)
        answers = trainer.predict(others)
        assert report.epochs[-1].loss < report.epochs[0].loss
        right.append(float((answers.probabilities.argmax(1) == answers.labels).mean()))
    assert min(right) > 0.8 and abs(right[0] - right[1]) < 0.2
