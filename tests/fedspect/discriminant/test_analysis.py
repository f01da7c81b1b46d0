from __future__ import annotations

import numpy as np
import pytest

from fedspect.discriminant.analysis import ABSENT, SHARPNESS, solve
from fedspect.discriminant.scores import (
    BINS,
    TEMPERATURES,
    best_candidate,
    best_temperature,
    distance_counts,
    distance_limit,
    score,
    squared_distances,
)
from fedspect.discriminant.statistics import ClassStatistics
from fedspect.errors import NoPicturesError, SettingsError

CLASSES, FEATURES = 3, 6


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, CLASSES, count)
    centres = np.random.default_rng(5).standard_normal((CLASSES, FEATURES)) * 2
    return centres[labels] + numbers.standard_normal((count, FEATURES)), labels


def solved(shrinkage: float = 0.01, count: int = 600):  # type: ignore[no-untyped-def]
    return solve(ClassStatistics.of(*pictures(count, 1), CLASSES), shrinkage)


def test_whitening_makes_the_covariance_within_classes_the_identity() -> None:
    features, labels = pictures(600, 1)
    found = solved(shrinkage=1e-6)
    whitened = features @ found.whitening.T
    centred = whitened - np.stack([whitened[labels == k].mean(0) for k in range(CLASSES)])[labels]
    np.testing.assert_allclose(centred.T @ centred / (600 - CLASSES), np.eye(FEATURES), atol=1e-3)


def test_answers_are_those_of_the_nearest_mean_by_mahalanobis() -> None:
    features, labels = pictures(600, 1)
    held_out, _ = pictures(200, 2)
    means = np.stack([features[labels == k].mean(0) for k in range(CLASSES)])
    centred = features - means[labels]
    inverse = np.linalg.inv(centred.T @ centred / (600 - CLASSES))
    offsets = held_out[:, None] - means[None]
    distances = np.einsum("nkd,de,nke->nk", offsets, inverse, offsets)
    found = solved(shrinkage=1e-6)
    assert (found.linear().scores(held_out).argmax(1) == distances.argmin(1)).all()
    np.testing.assert_allclose(squared_distances(found, held_out), distances.min(1), rtol=1e-3)


def test_a_class_without_pictures_is_never_answered() -> None:
    features, labels = pictures(100, 1)
    found = solve(ClassStatistics.of(features, labels, CLASSES + 1))
    assert found.bias[CLASSES] == ABSENT
    assert (found.linear().scores(features).argmax(1) < CLASSES).all()


@pytest.mark.parametrize("features", [np.zeros((5, FEATURES)), np.ones((1, FEATURES)) * 3.0])
def test_features_that_never_vary_and_a_single_picture_give_finite_answers(features: np.ndarray) -> None:
    found = solve(ClassStatistics.of(features, np.zeros(len(features), int), CLASSES))
    assert all(np.isfinite(values).all() for values in found.tensors().values())


def test_no_pictures_and_impossible_shrinkage_are_refused() -> None:
    with pytest.raises(NoPicturesError):
        solve(ClassStatistics.empty(CLASSES, FEATURES))
    with pytest.raises(SettingsError):
        solved(shrinkage=0.0)


def test_scores_of_plants_add_up_to_those_of_all() -> None:
    features, labels = pictures(90, 3)
    candidates = [solved(s).linear() for s in (0.01, 0.5)]
    whole = score(candidates, features, labels)
    parts = score(candidates, features[:31], labels[:31]) + score(candidates, features[31:], labels[31:])
    assert np.array_equal(parts.confusion, whole.confusion)
    assert np.array_equal(parts.losses, whole.losses)
    assert whole.pictures == 90


def test_the_best_candidate_answers_most_rightly_and_its_temperature_is_the_likeliest() -> None:
    features, labels = pictures(400, 4)
    good, bad = solved().linear(), solve(ClassStatistics.of(*pictures(4, 9), CLASSES), 1.0).linear()
    scores = score([bad, good], features, labels)
    assert best_candidate(scores) == 1
    assert 0.5 < best_temperature(scores, 1) < 2.0  # the model that made the pictures is the one that answers
    assert best_candidate(score([bad, good], features[:0], labels[:0])) == 0
    assert len(TEMPERATURES) == scores.losses.shape[1]


def test_the_limit_asks_about_the_share_that_was_wished_for() -> None:
    found = solved()
    counts = distance_counts(found, pictures(5000, 6)[0])
    limit = distance_limit(counts, 0.01)
    beyond = (squared_distances(found, pictures(5000, 7)[0]) > limit).mean()
    assert 0.004 < beyond < 0.02


def test_few_held_out_pictures_give_a_wide_limit_and_none_gives_no_limit() -> None:
    counts = np.zeros(BINS, np.int64)
    assert distance_limit(counts, 0.01) == np.inf
    counts[40] = 3
    assert distance_limit(counts, 0.01) == pytest.approx(1.5 * 2 ** (41 / 8))


def test_tensors_hold_the_inverse_of_the_temperature() -> None:
    from dataclasses import replace

    assert replace(solved(), temperature=4.0).tensors()[SHARPNESS].tolist() == [0.25]
