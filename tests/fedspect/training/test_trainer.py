from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedspect.data.pictures import CheckedPicture
from fedspect.errors import ClassError, ModelError, NoPicturesError, PictureError, SettingsError
from fedspect.model.levels import LevelledNetwork, head_part, head_state
from fedspect.training.reports import ProgressEvent
from fedspect.training.trainer import Trainer
from training_pictures import (
    CLASSES,
    GREY,
    checked,
    make_pictures,
    small_network,
    small_settings,
    small_trainer,
)

AS_THEY_ARE: Dict[str, Any] = {
    "views": {
        "orientations": False,
        "crops": False,
        "light": False,
        "contrast": False,
        "noise": False,
        "blur": False,
    }
}


def copied(network: LevelledNetwork) -> Dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def changed(before: Dict[str, Tensor], network: LevelledNetwork) -> List[str]:
    return [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]


def level_of(network: LevelledNetwork, name: str) -> int:
    return [level for level, _ in network.levels()].index(name.partition(".")[0]) + 1


def distance(first: Dict[str, Tensor], second: Dict[str, Tensor]) -> float:
    return sum(float((first[name] - second[name]).pow(2).sum()) for name in first) ** 0.5


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("freeze_levels", [0, 5, 8, 11])
def test_training_moves_every_tensor_of_the_unfrozen_levels_and_none_of_the_frozen_ones(
    pictures: List[CheckedPicture], freeze_levels: int, cache: bool
) -> None:
    network = small_network()
    before = copied(network)
    trainer = small_trainer(network, freeze_levels=freeze_levels, cache=cache)
    trainer.fit(pictures, epochs=1)
    trainer.predict(pictures)
    moved = set(changed(before, network))
    fixed = ("index",)  # which channels a condensed layer gathers
    for name in before:
        if level_of(network, name) <= freeze_levels or name.endswith(fixed):
            assert name not in moved, name
        else:
            assert name in moved, name


def test_a_network_learns_to_tell_textures_from_cached_features(
    pictures: List[CheckedPicture], others: List[CheckedPicture], tmp_path: Path
) -> None:
    trainer = small_trainer(folder=tmp_path)
    report = trainer.fit(pictures, epochs=10)
    answers = trainer.predict(others)
    assert (answers.probabilities.argmax(1) == answers.labels).mean() > 0.8
    assert np.allclose(answers.probabilities.sum(1), 1, atol=1e-5)
    assert answers.names == tuple(picture.name for picture in others)
    assert report.epochs[-1].loss < report.epochs[0].loss
    assert report.num_examples == 24 and report.counts == dict.fromkeys(CLASSES, 8)
    assert len(report.epochs) == 10 and report.best_epoch == 9 and not report.stopped_early


@pytest.mark.parametrize(
    ("architecture", "freeze_levels"), [("cdnv2-a", 8), ("cdnv2-a", 0), ("plain-cnn", 0)]
)
def test_one_seed_gives_one_result_and_another_seed_another(
    pictures: List[CheckedPicture], architecture: str, freeze_levels: int
) -> None:
    def trained(seed: int, disturb: int) -> Dict[str, Tensor]:
        torch.manual_seed(disturb)
        network = small_network(architecture=architecture)
        small_trainer(network, freeze_levels=freeze_levels, seed=seed).fit(pictures, epochs=2)
        return copied(network)

    first = trained(1, 10)
    assert all(torch.equal(first[name], value) for name, value in trained(1, 20).items())
    assert any(not torch.equal(first[name], value) for name, value in trained(2, 10).items())


def test_a_full_cache_gives_the_same_bits_as_an_empty_one(
    pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    results, computed = [], []
    for folder in (tmp_path, tmp_path, None):
        network = small_network()
        report = small_trainer(network, folder=folder).fit(pictures, epochs=3)
        results.append(copied(network))
        computed.append(report.features_computed)
    assert computed == [72, 0, 72]
    for other in results[1:]:
        assert all(torch.equal(results[0][name], value) for name, value in other.items())


def test_runs_with_other_seeds_share_the_cache(pictures: List[CheckedPicture], tmp_path: Path) -> None:
    views = {"views": {"views_per_picture": 10}}
    small_trainer(folder=tmp_path, seed=1, **views).fit(pictures[:6], epochs=10)
    assert small_trainer(folder=tmp_path, seed=2, **views).fit(pictures[:6], epochs=3).features_computed == 0


def test_training_on_cached_features_is_training_through_the_frozen_levels(
    pictures: List[CheckedPicture],
) -> None:
    start = small_network()
    cached, through = small_network(), small_network()
    small_trainer(cached, **AS_THEY_ARE).fit(pictures, epochs=2)
    small_trainer(through, cache=False, **AS_THEY_ARE).fit(pictures, epochs=2)
    moved = distance(head_state(start, 8), head_state(cached, 8))
    assert distance(head_state(cached, 8), head_state(through, 8)) < 0.05 * moved


def test_statistics_of_the_norms_are_the_mean_over_an_epoch_even_of_a_small_plant(
    pictures: List[CheckedPicture],
) -> None:
    network = small_network()
    trainer = small_trainer(network, learning_rate=1e-9, **AS_THEY_ARE)
    trainer.fit(pictures, epochs=1)
    features = trainer.inputs.batch([(picture, 0) for picture in pictures])
    norm = next(module for module in head_part(network, 8).modules() if isinstance(module, nn.BatchNorm2d))
    index = network.get_buffer("block5.layer1.lgc.index")
    expected = features.mean((0, 2, 3))[index]
    assert norm.running_mean is not None and torch.allclose(norm.running_mean, expected, rtol=1e-3, atol=1e-5)
    assert norm.momentum == 0.1


def test_rounds_are_parts_of_one_schedule(pictures: List[CheckedPicture]) -> None:
    plain = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.01}
    at_once, in_rounds = small_network(), small_network()
    small_trainer(at_once, **plain).fit(pictures, epochs=4)
    trainer = small_trainer(in_rounds, **plain)
    for first in (0, 1, 3):
        trainer.fit(pictures, epochs=2 if first == 1 else 1, first_epoch=first, total_epochs=4)
    assert all(torch.equal(value, copied(at_once)[name]) for name, value in copied(in_rounds).items())


def test_the_proximal_term_holds_the_network_near_its_anchor(pictures: List[CheckedPicture]) -> None:
    plain = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.02, "gradient_clip": 0.0}
    start = {name: value for name, value in head_state(small_network(), 8).items() if "running" not in name}
    moved = []
    for mu in (0.0, 5.0, 25.0):
        network = small_network()
        small_trainer(network, **plain).fit(pictures, epochs=2, anchor=start, proximal_mu=mu)
        state = head_state(network, 8)
        moved.append(distance(start, {name: state[name] for name in start}))
    assert moved[0] > moved[1] > moved[2] and moved[2] < 0.7 * moved[0]


def test_without_an_anchor_fedprox_pulls_to_where_the_call_began(pictures: List[CheckedPicture]) -> None:
    given, default = small_network(), small_network()
    anchor = {name: value.clone() for name, value in head_state(given, 8).items()}
    small_trainer(given).fit(pictures, epochs=1, anchor=anchor, proximal_mu=2.0)
    small_trainer(default).fit(pictures, epochs=1, proximal_mu=2.0)
    assert all(torch.equal(value, copied(given)[name]) for name, value in copied(default).items())


def test_the_best_epoch_on_the_validation_pictures_is_kept_and_training_stops_early(
    pictures: List[CheckedPicture], others: List[CheckedPicture]
) -> None:
    trainer = small_trainer(learning_rate=0.02, final_learning_rate=1.0)
    report = trainer.fit(pictures, epochs=40, validation=others, patience=2)
    scores = [(epoch.validation_accuracy, -(epoch.validation_loss or 0)) for epoch in report.epochs]
    assert report.stopped_early and len(report.epochs) < 40
    assert report.best_epoch == max(range(len(scores)), key=lambda place: scores[place])
    assert len(report.epochs) == report.best_epoch + 3
    answers = trainer.predict(others)
    truth = answers.probabilities[np.arange(len(others)), answers.labels]
    assert -np.log(truth).mean() == pytest.approx(-scores[report.best_epoch][1], rel=1e-4)


@pytest.mark.parametrize("freeze_levels", [0, 8])
def test_one_picture_and_one_class_alone_train(pictures: List[CheckedPicture], freeze_levels: int) -> None:
    network = small_network()
    report = small_trainer(network, freeze_levels=freeze_levels, class_weights="balanced").fit(
        pictures[:1], epochs=2
    )
    assert report.num_examples == 1 and np.isfinite(report.loss)
    assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
    one_class = [picture for picture in pictures if picture.label == "dark"]
    assert np.isfinite(small_trainer().fit(one_class, epochs=1).loss)


def test_an_interrupted_fit_leaves_the_network_as_it_was(pictures: List[CheckedPicture]) -> None:
    def interrupted(event: ProgressEvent) -> None:
        if event.stage == "training" and event.epoch == 1:
            raise KeyboardInterrupt

    network = small_network()
    before = {name: value.clone() for name, value in head_state(network, 8).items()}
    trainer = small_trainer(network)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(pictures, epochs=3, progress=interrupted)
    assert distance(before, head_state(network, 8)) == 0
    assert not network.training
    trainer.fit(pictures, epochs=1)


def test_a_diverging_training_says_so_and_leaves_the_network_as_it_was(
    pictures: List[CheckedPicture],
) -> None:
    network = small_network()
    before = {name: value.clone() for name, value in head_state(network, 8).items()}
    trainer = small_trainer(
        network, optimizer="sgd", learning_rate=10.0, gradient_clip=0.0, warmup_epochs=0.0
    )
    with pytest.raises(ModelError, match="learning_rate"):
        trainer.fit(pictures, epochs=60)
    assert distance(before, head_state(network, 8)) == 0


def test_nothing_to_train_on_and_unknown_classes_are_said(
    pictures: List[CheckedPicture], others: List[CheckedPicture]
) -> None:
    trainer = small_trainer()
    with pytest.raises(NoPicturesError):
        trainer.fit([], epochs=1)
    with pytest.raises(ClassError, match="rust"):
        trainer.fit([*pictures, checked(others[0].path, "rust")], epochs=1)
    with pytest.raises(ClassError, match="fine"):
        trainer.fit(pictures, epochs=1, validation=[checked(others[0].path, None)])


def test_pictures_without_a_known_class_are_answered_all_the_same(others: List[CheckedPicture]) -> None:
    strangers = [checked(others[0].path, None), checked(others[1].path, "rust"), others[2]]
    answers = small_trainer().predict(strangers)
    assert answers.labels.tolist() == [-1, -1, 2]
    assert len(answers) == 3 and answers.probabilities.shape == (3, 3)
    assert small_trainer().predict([]).probabilities.shape == (0, 3)


def test_a_picture_that_is_lost_while_training_is_named(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, 2)
    pictures[4].path.unlink()
    with pytest.raises(PictureError, match=pictures[4].path.name):
        small_trainer(freeze_levels=0).fit(pictures, epochs=1)


def test_progress_tells_of_features_training_and_validation(
    pictures: List[CheckedPicture], others: List[CheckedPicture]
) -> None:
    events: List[ProgressEvent] = []
    small_trainer().fit(pictures, epochs=2, first_epoch=5, validation=others, progress=events.append)
    ends = [(event.stage, event.epoch) for event in events if event.done == event.total]
    assert ends == [
        ("features", 5),
        ("training", 5),
        ("validation", 5),
        ("features", 6),
        ("training", 6),
        ("validation", 6),
    ]
    assert all(event.loss is not None for event in events if event.stage == "training")


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="classes"):
        Trainer(
            small_network(),
            GREY,
            ["one", "two"],
            small_settings(),
            freeze_levels=8,
            base_hash="",
            cache_folder=None,
            seed=0,
        )
    with pytest.raises(ModelError, match="freeze"):
        small_trainer(freeze_levels=12)
    with pytest.raises(SettingsError, match="GPU"):
        small_trainer(device="cuda:77")


def test_networks_with_dropout_train_the_same_beside_each_other(pictures: List[CheckedPicture]) -> None:
    def trained(network: LevelledNetwork, seed: int) -> Dict[str, Tensor]:
        small_trainer(network, freeze_levels=0, seed=seed).fit(pictures[:8], epochs=2)
        return copied(network)

    networks = [small_network(architecture="plain-cnn") for _ in range(6)]
    alone = [trained(network, seed) for seed, network in enumerate(networks[:3])]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(trained, networks[3:], range(3)))
    for first, second in zip(alone, together):
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_training_leaves_torchs_random_numbers_alone(pictures: List[CheckedPicture]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    small_trainer(small_network(architecture="plain-cnn"), freeze_levels=0).fit(pictures[:4], epochs=1)
    assert torch.equal(torch.rand(2), expected)
