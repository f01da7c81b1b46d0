from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, List, Optional, Tuple

import numpy as np
import pytest
import torch

from fedspect.data.pictures import CheckedPicture
from fedspect.data.views import ViewSettings
from fedspect.errors import CheckpointError, ModelError
from fedspect.model.base import save_base
from fedspect.training.objective import cross_entropy_within, within_source
from fedspect.training.pretraining import Pretrained, PretrainingSettings, drawn, pretrain, size_at
from fedspect.training.reports import ProgressEvent
from training_pictures import CLASSES, GREY, small_network, small_trainer


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


def with_sources(pictures: List[CheckedPicture]) -> Tuple[List[CheckedPicture], List[str]]:
    """The same pictures as those of two sources: "fine" and "coarse" of one, all three of the other."""
    named = []
    for place, each in enumerate(pictures):
        source = "two" if each.label != "dark" and place % 2 else "three"
        label = f"{source}/{each.label}"
        named.append(replace(each, picture=replace(each.picture, label=label)))
    return named, sorted({str(each.label) for each in named})


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    def run(checkpoint: Optional[Path], stop_at: int = 99) -> Pretrained:
        def heard(event: ProgressEvent) -> None:
            if event.epoch == stop_at:
                raise KeyboardInterrupt

        settings = PretrainingSettings(epochs=3, batch_size=8, device="cpu", smallest_size=64)
        return pretrain(
            "cdnv2-a",
            pictures[:6],
            [],
            CLASSES,
            GREY,
            settings,
            seed=1,
            checkpoint=checkpoint,
            progress=heard,
        )

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "point", stop_at=2)
    resumed = run(tmp_path / "point")
    assert len(resumed.fit.epochs) == 3
    expected, seen = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(value, seen[name]) for name, value in expected.items())


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(
    pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    def run(seed: int) -> None:
        settings = PretrainingSettings(epochs=2, batch_size=8, device="cpu")
        pretrain(
            "plain-cnn", pictures[:6], [], CLASSES, GREY, settings, seed=seed, checkpoint=tmp_path / "point"
        )

    run(1)
    with pytest.raises(CheckpointError, match="another pre-training"):
        run(2)
    (tmp_path / "point").write_bytes((tmp_path / "point").read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        run(1)


def test_each_source_has_a_classifier_of_its_own(
    pictures: List[CheckedPicture], others: List[CheckedPicture]
) -> None:
    named, classes = with_sources(pictures)
    settings = PretrainingSettings(epochs=2, batch_size=8, device="cpu")
    result = pretrain("plain-cnn", named, with_sources(others)[0], classes, GREY, settings, seed=1)
    assert result.evaluation is not None
    confusion = np.asarray(result.evaluation.confusion)
    owners = np.asarray([name.partition("/")[0] for name in classes])
    assert confusion.sum() == len(others)
    assert confusion[owners[:, None] != owners[None]].sum() == 0


def test_smoothing_and_logits_stay_within_the_source() -> None:
    logits = torch.tensor([[1.0, 2.0, 50.0], [0.5, 0.1, 3.0]], requires_grad=True)
    labels, sources = torch.tensor([0, 2]), torch.tensor([0, 0, 1])
    loss = cross_entropy_within(within_source(logits, labels, sources), labels, None, 0.1)
    alone = torch.nn.functional.cross_entropy(
        torch.tensor([[1.0, 2.0]]), torch.tensor([0]), label_smoothing=0.1
    )
    assert loss.item() == pytest.approx(alone.item() / 2)  # the other source has one class: no loss
    loss.backward()
    assert logits.grad is not None and logits.grad[0, 2] == 0 and torch.isfinite(logits.grad).all()


def test_an_epoch_draws_from_each_source_by_the_root_of_its_size(pictures: List[CheckedPicture]) -> None:
    large = [replace(each, picture=replace(each.picture, label="large/a")) for each in pictures[:9] * 4]
    small = [replace(each, picture=replace(each.picture, label="small/a")) for each in pictures[:9]]
    chosen = drawn([*large, *small], 15, seed=1, epoch=0)
    labels = [each.label for each in chosen]
    assert (labels.count("large/a"), labels.count("small/a")) == (10, 5)
    assert drawn([*large, *small], 0, seed=1, epoch=0) == [*large, *small]


def test_pictures_grow_to_their_last_size() -> None:
    settings = PretrainingSettings(epochs=10, smallest_size=64)
    sizes = [size_at(epoch, 128, settings) for epoch in range(10)]
    assert sizes[0] == 64 and sizes[-1] == 128 and sizes == sorted(sizes)
    assert size_at(0, 128, PretrainingSettings(epochs=10)) == 128


def test_a_start_is_gone_on_from_and_one_of_another_kind_is_refused(
    pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    base = save_base(
        tmp_path,
        small_network(),
        classes=CLASSES,
        input_size=64,
        mean=[0.5],
        std=[0.25],
        provenance={},
    )
    settings = PretrainingSettings(epochs=2, batch_size=8, device="cpu", learning_rate=1e-6)
    result = pretrain("cdnv2-a", pictures[:6], [], CLASSES, GREY, settings, seed=1, start=base)
    assert (result.network.form, result.dropped_weights) == ("condensed", 0)
    kernel = dict(result.network.named_parameters())["initial.weight"]
    assert torch.allclose(kernel, base.state["initial.weight"], atol=1e-3)
    with pytest.raises(ModelError, match="another kind"):
        pretrain("cdnv2-b", pictures[:6], [], CLASSES, GREY, settings, seed=1, start=base)
