"""Every picture goes to exactly one plant, groups stay whole, and a seed gives one deal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedsim.partition import PARTITIONS, deal_to_plants
from fedspect.data.pictures import CheckedPicture, Picture
from fedspect.errors import NoPicturesError, SplitError


def picture(name: str, label: str, group: str, **columns: str) -> CheckedPicture:
    listed = Picture(Path("/nowhere") / name, name, label, columns=columns)
    return CheckedPicture(listed, name.ljust(32, "0"), 64, 64, 1, 8, group)


def pictures_of(sizes: dict) -> list:
    """``{"a": [3, 1]}``: class a has a group of three pictures and a single one."""
    return [
        picture(f"{label}/{label}_{g}_{i}.png", label, f"{label}-g{g}", line=f"line {g % 3}")
        for label, groups in sizes.items()
        for g, size in enumerate(groups)
        for i in range(size)
    ]


sizes = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.integers(1, 5), min_size=1, max_size=12), min_size=1
)


@given(
    sizes,
    st.integers(1, 6),
    st.sampled_from(["iid", "dirichlet", "by-class"]),
    st.integers(0, 99),
    st.floats(0.05, 50),
)
def test_each_picture_is_dealt_once_groups_stay_whole_and_order_does_not_matter(
    sizes, plants, partition, seed, alpha
):
    pictures = pictures_of(sizes)
    try:
        shares = deal_to_plants(pictures, plants, partition=partition, seed=seed, alpha=alpha)
    except SplitError as error:
        assume("would have no pictures" not in error.what)
        raise
    dealt = Counter(each.name for share in shares for each in share.pictures)
    assert dealt == Counter(each.name for each in pictures)
    plants_of_group: dict = {}
    for share in shares:
        assert share.pictures
        for each in share.pictures:
            plants_of_group.setdefault(each.group, set()).add(share.name)
    assert all(len(names) == 1 for names in plants_of_group.values())
    assert [share.name for share in shares] == [f"plant-{n}" for n in range(1, plants + 1)]
    assert shares == deal_to_plants(pictures[::-1], plants, partition=partition, seed=seed, alpha=alpha)


@given(sizes, st.integers(1, 6), st.sampled_from(PARTITIONS))
def test_a_deal_either_fills_every_plant_or_names_the_empty_ones(sizes, plants, partition):
    pictures = pictures_of(sizes)
    groups = len({each.group for each in pictures})
    try:
        shares = deal_to_plants(pictures, plants, partition=partition, seed=1, column="line")
    except SplitError as error:
        assert "plant-" in error.what and "would have no pictures" in error.what
        assert partition != "iid" or groups < plants
    else:
        assert all(share.pictures for share in shares)


def test_iid_gives_every_plant_the_same_number_of_each_class():
    shares = deal_to_plants(pictures_of({"a": [1] * 40, "b": [2] * 20}), 4, partition="iid", seed=1)
    for share in shares:
        assert Counter(each.label for each in share.pictures) == {"a": 10, "b": 10}


def test_a_small_alpha_is_less_even_than_a_large_one():
    pictures = pictures_of({label: [1] * 60 for label in "abcdef"})

    def unevenness(alpha: float) -> float:
        total = 0.0
        for seed in range(5):
            shares = deal_to_plants(pictures, 4, partition="dirichlet", seed=seed, alpha=alpha)
            total += sum(
                abs(sum(each.label == label for each in share.pictures) - 15)
                for share in shares
                for label in "abcdef"
            )
        return total

    assert unevenness(0.1) > 2 * unevenness(100.0)


def test_by_class_gives_each_class_to_one_plant_and_leaves_others_without_it():
    shares = deal_to_plants(
        pictures_of({label: [2, 1] for label in "abcdef"}), 4, partition="by-class", seed=1
    )
    held = [sorted({each.label for each in share.pictures}) for share in shares]
    assert sorted(label for labels in held for label in labels) == list("abcdef")
    assert sorted(map(len, held)) == [1, 1, 2, 2]


def test_by_class_with_more_plants_than_classes_shares_a_class():
    shares = deal_to_plants(pictures_of({"a": [1] * 9, "b": [1] * 9}), 3, partition="by-class", seed=1)
    assert all(len({each.label for each in share.pictures}) == 1 for share in shares)


def test_by_column_makes_a_plant_of_each_value_in_order():
    shares = deal_to_plants(pictures_of({"a": [1] * 9}), 99, partition="by-column", seed=1, column="line")
    assert [(share.name, share.origin, len(share.pictures)) for share in shares] == [
        ("plant-1", "line line 0", 3),
        ("plant-2", "line line 1", 3),
        ("plant-3", "line line 2", 3),
    ]


def test_a_missing_column_is_named_with_those_that_exist():
    with pytest.raises(SplitError) as caught:
        deal_to_plants(pictures_of({"a": [1]}), 2, partition="by-column", seed=1, column="component")
    assert "component" in caught.value.what and "line" in (caught.value.accepted or "")


def test_another_seed_deals_otherwise():
    pictures = pictures_of({label: [1] * 30 for label in "abc"})
    first, second = (deal_to_plants(pictures, 3, partition="dirichlet", seed=seed) for seed in (1, 2))
    assert first != second


def test_plants_that_would_stay_empty_are_named():
    with pytest.raises(SplitError, match=r"plant-\d.* would have no pictures"):
        deal_to_plants(pictures_of({"a": [1], "b": [1]}), 4, partition="iid", seed=1)


def test_nothing_to_deal_is_said():
    with pytest.raises(NoPicturesError):
        deal_to_plants([], 4, partition="iid", seed=1)
