from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn_surfaces import REAL_DATA, checked, needs_neu, sides_of
from fedspect.data.inspection import inspect_pictures
from fedspect.data.pictures import SET_ASIDE, CheckedPicture
from fedspect.data.sources import find_pictures
from fedspect.data.split import SplitLedger, count_labels, given_up, split_pictures
from fedspect.errors import DamagedFileError, SplitError

HALVES = {"train": 0.5, "test": 0.5}
PLANT = {"train": 0.7, "evaluation": 0.2, "golden": 0.1}


def singles(**counts: int) -> List[CheckedPicture]:
    names = [f"{label}/{number}" for label, count in counts.items() for number in range(count)]
    return checked(names, [name.split("/")[0] for name in names])


@st.composite
def populations(draw: st.DrawFn) -> List[CheckedPicture]:
    sizes = draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6)), min_size=1, max_size=25))
    names, labels, groups = [], [], []
    for number, (label, size) in enumerate(sizes):
        for member in range(size):
            names.append(f"{number}-{member}")
            labels.append(label)
            groups.append(f"g{number}")
    return checked(names, labels, groups)


def test_single_pictures_are_shared_out_exactly_class_by_class() -> None:
    sides = split_pictures(singles(a=300, b=50, c=10), {"train": 0.8, "test": 0.2}, seed=1)
    assert count_labels(sides["train"]) == {"a": 240, "b": 40, "c": 8}
    assert count_labels(sides["test"]) == {"a": 60, "b": 10, "c": 2}


def test_shares_need_not_sum_to_one() -> None:
    sides = split_pictures(singles(a=10), {"train": 8, "test": 2}, seed=1)
    assert {name: len(side) for name, side in sides.items()} == {"train": 8, "test": 2}


def test_small_remainders_are_carried_so_that_no_side_starves() -> None:
    sides = split_pictures(singles(a=4, b=4, c=4, d=4, e=4), PLANT, seed=1)
    assert {name: len(side) for name, side in sides.items()} == {"train": 14, "evaluation": 4, "golden": 2}


@settings(max_examples=150, deadline=None)
@given(pictures=populations(), seed=st.integers(0, 5))
def test_groups_stay_whole_and_nothing_is_lost(pictures: List[CheckedPicture], seed: int) -> None:
    sides = split_pictures(pictures, PLANT, seed=seed)
    assert list(sides) == list(PLANT)
    assert sorted(p.name for side in sides.values() for p in side) == sorted(p.name for p in pictures)
    side_of_group: Dict[str, str] = {}
    for name, members in sides.items():
        assert members == sorted(members, key=lambda picture: picture.name)
        for picture in members:
            assert side_of_group.setdefault(picture.group, name) == name


@settings(max_examples=60, deadline=None)
@given(pictures=populations(), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_order_of_pictures_does_not_matter(
    pictures: List[CheckedPicture], seed: int, order: object
) -> None:
    shuffled = list(pictures)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split_pictures(pictures, HALVES, seed=seed) == split_pictures(shuffled, HALVES, seed=seed)


@settings(max_examples=100, deadline=None)
@given(pictures=populations(), seed=st.integers(0, 5))
def test_no_side_is_wrong_by_more_than_its_largest_group(pictures: List[CheckedPicture], seed: int) -> None:
    labels = count_labels(pictures)
    sides = split_pictures(pictures, HALVES, seed=seed)
    for label, count in labels.items():
        sizes: Dict[str, int] = {}
        for picture in pictures:
            if picture.label == label:
                sizes[picture.group] = sizes.get(picture.group, 0) + 1
        assert abs(count_labels(sides["train"]).get(label, 0) - count / 2) <= max(sizes.values())


def test_another_seed_gives_another_split() -> None:
    pictures = singles(a=40)
    splits = [sides_of(split_pictures(pictures, HALVES, seed=seed)) for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_without_groups_every_picture_goes_by_itself() -> None:
    pictures = checked([str(n) for n in range(20)], ["a"] * 20, ["one"] * 20)
    assert len(split_pictures(pictures, HALVES, seed=1, by_group=False)["test"]) == 10
    assert split_pictures(pictures, HALVES, seed=1)["test"] == []


def test_a_plant_too_small_says_which_sides_it_gave_up() -> None:
    one = split_pictures(singles(a=1), PLANT, seed=1)
    assert len(one["train"]) == 1
    assert given_up(one) == ["evaluation", "golden"]
    assert given_up(split_pictures(singles(a=3), PLANT, seed=1)) == ["golden"]
    assert given_up(split_pictures(singles(a=10), PLANT, seed=1)) == []


def test_no_pictures_and_shares_that_are_none_are_refused() -> None:
    with pytest.raises(SplitError):
        split_pictures([], HALVES, seed=1)
    for shares in ({}, {"train": 0.0}, {"train": -1.0}, {"train": float("nan")}, {"train": float("inf")}):
        with pytest.raises(SplitError):
            split_pictures(singles(a=1), shares, seed=1)


def test_pictures_without_a_class_are_split_too() -> None:
    pictures = checked(["x", "y"], [None, None])
    assert [len(side) for side in split_pictures(pictures, HALVES, seed=1).values()] == [1, 1]


@settings(max_examples=100, deadline=None)
@given(
    pictures=populations(), steps=st.lists(st.integers(1, 60), min_size=1, max_size=4), seed=st.integers(0, 3)
)
def test_a_picture_never_changes_sides_when_pictures_are_added(
    pictures: List[CheckedPicture], steps: List[int], seed: int
) -> None:
    ledger = SplitLedger()
    seen: Dict[str, str] = {}
    for count in [*sorted(steps), len(pictures)]:
        some = pictures[:count]
        split = ledger.assign(some, PLANT, seed=seed)
        sides = sides_of(split.sides)
        assert not split.set_aside  # groups only grow here, they never meet
        assert len(sides) == len(some)
        assert all(sides[name] == side for name, side in seen.items())
        groups: Dict[str, str] = {}
        for picture in some:
            assert groups.setdefault(picture.group, sides[picture.name]) == sides[picture.name]
        seen = sides


@settings(max_examples=60, deadline=None)
@given(pictures=populations(), joined=st.data())
def test_when_new_pictures_join_groups_the_old_ones_stay_and_no_side_leaks(
    pictures: List[CheckedPicture], joined: st.DataObject
) -> None:
    ledger = SplitLedger()
    before = sides_of(ledger.assign(pictures, HALVES, seed=1).sides)
    groups = sorted({picture.group for picture in pictures})
    merged = {group: joined.draw(st.sampled_from(groups)) for group in groups}
    old = checked(
        [p.name for p in pictures], [p.label for p in pictures], [merged[p.group] for p in pictures]
    )
    new = checked([f"new {group}" for group in groups], ["a"] * len(groups), [merged[g] for g in groups])
    split = ledger.assign([*old, *new], HALVES, seed=1)
    after = sides_of(split.sides)
    aside = {problem.name for problem in split.set_aside}
    assert all(after[name] == side for name, side in before.items())
    for picture in new:
        sides = {before[p.name] for p in old if p.group == picture.group}
        assert (picture.name in aside) == (len(sides) == 2)
        if len(sides) == 1:
            assert after[picture.name] in sides


def test_a_picture_that_joins_two_sides_is_set_aside_and_named() -> None:
    ledger = SplitLedger({"1": "train", "2": "test"})
    pictures = checked(["old", "twin", "bridge"], ["a"] * 3, ["g"] * 3, ["1", "2", "3"])
    split = ledger.assign(pictures, HALVES, seed=1)
    assert [(problem.name, problem.kind) for problem in split.set_aside] == [("bridge", SET_ASIDE)]
    assert split.set_aside[0].left_out
    assert "test and in train" in split.set_aside[0].detail
    assert sides_of(split.sides) == {"old": "train", "twin": "test"}
    assert ledger.side_of("3") is None


def test_new_pictures_go_where_they_are_needed() -> None:
    ledger = SplitLedger()
    ledger.assign(singles(a=4), {"train": 1.0}, seed=1)
    split = ledger.assign(singles(a=8), HALVES, seed=1)
    assert {name: len(side) for name, side in split.sides.items()} == {"train": 4, "test": 4}


def test_a_ledger_is_kept_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.json"
    ledger = SplitLedger.load(path)
    first = ledger.assign(singles(a=20, b=9), PLANT, seed=1)
    ledger.save(path)
    again = SplitLedger.load(path).assign(singles(a=20, b=9), PLANT, seed=99)
    assert again.sides == first.sides


def test_a_copy_under_another_name_follows_its_content() -> None:
    ledger = SplitLedger({"1": "test"})
    pictures = checked(["copy", "other"], ["a", "a"], ["g", "h"], ["1", "2"])
    assert sides_of(ledger.assign(pictures, HALVES, seed=1).sides)["copy"] == "test"


def test_what_a_plant_gave_up_is_said_and_later_made_good() -> None:
    ledger = SplitLedger()
    assert ledger.assign(singles(a=2), PLANT, seed=1).given_up == ["evaluation", "golden"]
    assert ledger.assign(singles(a=30), PLANT, seed=1).given_up == []


def test_a_side_that_is_named_no_longer_is_refused() -> None:
    ledger = SplitLedger({f"{0:032x}": "golden"})
    pictures = checked(["x"], ["a"], digests=[f"{0:032x}"])
    with pytest.raises(SplitError, match="golden"):
        ledger.assign(pictures, HALVES, seed=1)
    with pytest.raises(SplitError):
        ledger.assign([], HALVES, seed=1)


@pytest.mark.parametrize("content", ["", "[]", '{"format": "x", "sides": {}}', '{"sides": {"a": 1}}'])
def test_a_damaged_ledger_is_not_taken_for_an_empty_one(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(content)
    with pytest.raises(DamagedFileError):
        SplitLedger.load(path)


@pytest.mark.real_data
@needs_neu
def test_the_neu_groups_are_split_to_the_papers_counts() -> None:
    listing = find_pictures(REAL_DATA / "neu", manifest=REAL_DATA / "neu_split.csv")
    pictures = inspect_pictures(listing).pictures
    for seed in range(4):
        sides = split_pictures(pictures, {"train": 0.8, "test": 0.2}, seed=seed)
        assert all(abs(count - 60) <= 8 for count in count_labels(sides["test"]).values())
        assert not {p.group for p in sides["train"]} & {p.group for p in sides["test"]}
