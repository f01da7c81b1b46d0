from __future__ import annotations

from typing import Any, List

import numpy as np
import pytest
import torch

from fedspect.data.pictures import CheckedPicture
from fedspect.data.views import ViewSettings
from fedspect.errors import ModelError
from fedspect.training.pretraining import Pretrained, PretrainingSettings, pretrain
from training_pictures import CLASSES, GREY, small_trainer


def pretrained(
    pictures: List[CheckedPicture],
    held_out: List[CheckedPicture],
    architecture: str = "cdnv2-a",
    seed: int = 1,
    **changes: Any,
) -> Pretrained:
    options = {
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 0.02,
        "views": ViewSettings(crops=False),
        **changes,
    }
    return pretrain(
        architecture,
        pictures,
        held_out,
        CLASSES,
        GREY,
        PretrainingSettings(device="cpu", **options),
        seed=seed,
    )


@pytest.fixture(scope="module")
def result(pictures: List[CheckedPicture], others: List[CheckedPicture]) -> Pretrained:
    return pretrained(pictures, others)


def test_a_network_is_pretrained_with_learned_groups_and_handed_out_condensed(
    result: Pretrained, others: List[CheckedPicture]
) -> None:
    assert result.network.form == "condensed" and result.network.freeze_levels == 0
    assert result.dropped_weights > 1_000_000  # seven eighths of the 1x1 connections
    assert len(result.fit.epochs) == 4 and result.fit.epochs[-1].loss < result.fit.epochs[0].loss
    assert result.evaluation is not None and result.evaluation.num_examples == len(others)


def test_the_figures_are_those_of_the_network_that_is_handed_out(
    result: Pretrained, others: List[CheckedPicture]
) -> None:
    answers = small_trainer(result.network, freeze_levels=0).predict(others)
    assert result.evaluation is not None
    assert (answers.probabilities.argmax(1) == answers.labels).mean() == result.evaluation.accuracy
    truth = answers.probabilities[np.arange(len(others)), answers.labels]
    assert -np.log(truth).mean() == pytest.approx(result.evaluation.log_loss, rel=1e-4)


def test_one_seed_gives_one_base(pictures: List[CheckedPicture]) -> None:
    first, again, other = (pretrained(pictures[:4], [], epochs=2, seed=seed).network for seed in (1, 1, 2))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in first.state_dict().items())


def test_a_peer_is_pretrained_without_dropping(pictures: List[CheckedPicture]) -> None:
    result = pretrained(pictures[:8], [], "plain-cnn", epochs=2)
    assert (result.network.form, result.dropped_weights, result.evaluation) == ("plain", 0, None)


def test_an_unknown_architecture_is_said_before_any_work(pictures: List[CheckedPicture]) -> None:
    with pytest.raises(ModelError, match="cdnv2-a"):
        pretrained(pictures, [], "cdnv2-z")
