from __future__ import annotations

from typing import List

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedspect.discriminant import wire
from fedspect.discriminant.analysis import solve
from fedspect.discriminant.checks import check_statistics
from fedspect.discriminant.statistics import LARGEST, MOST_PICTURES, STEP, ClassStatistics, total
from fedspect.errors import UpdateFormatError, UpdateRefusedError
from fedspect.update.schema import version_of

CLASSES, FEATURES = 3, 7


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, CLASSES, count)
    mixing = np.random.default_rng(99).standard_normal((FEATURES, FEATURES))
    centres = np.random.default_rng(98).standard_normal((CLASSES, FEATURES)) * 3
    return centres[labels] + numbers.standard_normal((count, FEATURES)) @ mixing, labels


def statistics(count: int = 40, seed: int = 0) -> ClassStatistics:
    features, labels = pictures(count, seed)
    return ClassStatistics.of(features, labels, CLASSES)


@settings(max_examples=50, deadline=None)
@given(owners=st.lists(st.integers(0, 5), min_size=60, max_size=60), order=st.permutations(range(6)))
def test_who_holds_which_picture_and_who_answers_first_changes_not_one_bit(
    owners: List[int], order: List[int]
) -> None:
    features, labels = pictures(60)
    held = np.array(owners)
    parts = [ClassStatistics.of(features[held == plant], labels[held == plant], CLASSES) for plant in order]
    together = total(parts, CLASSES, FEATURES)
    alone = ClassStatistics.of(features, labels, CLASSES)
    assert together == alone
    assert version_of(solve(together).tensors()) == version_of(solve(alone).tensors())


def test_what_was_added_can_be_subtracted_exactly() -> None:
    first, second = statistics(seed=1), statistics(seed=2)
    assert (first + second) - second == first


def test_sums_are_those_of_the_grid() -> None:
    features = np.array([[STEP, -2 * STEP], [3.4 * STEP, 1e9]])
    found = ClassStatistics.of(features, np.array([0, 0]), 1)
    assert found.sums.tolist() == [[4, -2 + LARGEST]]
    assert found.moment.tolist() == [[10, -2 + 3 * LARGEST], [-2 + 3 * LARGEST, 4 + LARGEST**2]]


def test_the_largest_sums_fit_float64_exactly() -> None:
    assert MOST_PICTURES * LARGEST**2 < 2**53


def test_more_pictures_than_sums_hold_exactly_are_refused() -> None:
    many = ClassStatistics(np.array([MOST_PICTURES]), np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64))
    with pytest.raises(UpdateRefusedError, match="exact"):
        many + many


def test_bytes_bring_back_the_sums() -> None:
    for one in (statistics(), ClassStatistics.empty(CLASSES, FEATURES)):
        blob = wire.to_bytes(one)
        assert wire.from_bytes(blob, CLASSES, FEATURES) == one
        assert len(blob) <= wire.largest(CLASSES, FEATURES)


@settings(max_examples=100, deadline=None)
@given(value=st.integers(-(2**53), 2**53))
def test_every_width_of_a_value_survives(value: int) -> None:
    one = ClassStatistics(np.array([3]), np.array([[value]]), np.array([[abs(value)]]))
    assert wire.from_bytes(wire.to_bytes(one), 1, 1) == one


def test_statistics_of_832_features_of_a_thousand_pictures_stay_below_two_megabytes() -> None:
    features = np.random.default_rng(0).normal(1.0, 0.5, (1000, 832))
    found = ClassStatistics.of(features, np.arange(1000) % 6, 6)
    assert len(wire.to_bytes(found)) < 2_000_000


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 10_000), cut=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_damaged_bytes_are_refused(place: int, cut: int, bit: int) -> None:
    blob = bytearray(wire.to_bytes(statistics()))
    blob[place % len(blob)] ^= 1 << bit
    for spoilt in (bytes(blob), bytes(blob)[: cut % len(blob)]):
        with pytest.raises(UpdateFormatError):
            wire.from_bytes(spoilt, CLASSES, FEATURES)


def test_sums_of_real_pictures_pass_the_checks() -> None:
    for count in (1, 2, 40):
        one = statistics(count)
        check_statistics(one, plant="a", classes=["x", "y", "z"], enrolled={"x": count})


def lie(**changes: np.ndarray) -> ClassStatistics:
    honest = statistics()
    parts = {"counts": honest.counts, "sums": honest.sums, "moment": honest.moment, **changes}
    return ClassStatistics(**parts)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (ClassStatistics.empty(CLASSES, FEATURES), "impossible number"),
        (lie(counts=np.array([4000, 4000, 4000])), "far more pictures"),
        (lie(sums=statistics().sums + LARGEST * 1000), "beyond the grid"),
        (lie(moment=statistics().moment * 0), "negative variance"),
        (lie(moment=statistics().moment + 10**11), "second moment"),
        (lie(moment=np.diag(np.full(FEATURES, 2**52))), "beyond the grid"),
        (
            lie(
                moment=statistics().moment
                + 10**9 * (np.ones((FEATURES, FEATURES), int) - np.eye(FEATURES, dtype=int))
            ),
            "no pictures have",
        ),
    ],
)
def test_lies_that_no_pictures_could_tell_are_refused(told: ClassStatistics, reason: str) -> None:
    with pytest.raises(UpdateRefusedError, match=reason):
        check_statistics(told, plant="a", classes=["x", "y", "z"], enrolled={"x": 40})
