"""Data partition among plants: IID, Dirichlet, by class, or by groups as the pictures really lie.

Pictures of one group show the same piece of surface and go to one plant together. A seed gives one deal,
whatever the order of the pictures, and every picture is dealt exactly once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Iterable, Literal, Mapping, Sequence, get_args

import numpy as np

from fedspect.data.pictures import CheckedPicture, Picture
from fedspect.data.split import draw
from fedspect.errors import NoPicturesError, SplitError
from fedspect.seeds import seed_digest

Partition = Literal["iid", "dirichlet", "by-class", "by-column"]
PARTITIONS: tuple[Partition, ...] = get_args(Partition)
REDRAWS = 100  # of a Dirichlet deal that leaves a plant empty
MOST_NAMED = 5  # plants without pictures
ROOM = 1e-9

Group = list[CheckedPicture]


@dataclass(frozen=True)
class PlantShare:
    """What one plant got: its name (``plant-1``), why these in a few words, the pictures sorted by name."""

    name: str
    origin: str
    pictures: tuple[CheckedPicture, ...]


def deal_to_plants(
    pictures: Sequence[CheckedPicture],
    plants: int,
    *,
    partition: Partition,
    seed: int,
    alpha: float = 0.5,
    column: str = "component",
) -> list[PlantShare]:
    """Deal every picture to one of ``plants`` plants.

    - ``iid``: every plant gets about the same number of each class.
    - ``dirichlet``: each class is shared out in proportions drawn from a Dirichlet distribution with
      concentration ``alpha`` (Hsu et al., 2019, sec. 3, class by class); a draw that leaves a plant empty is
      drawn again.
    - ``by-class``: each plant gets some of the classes and nothing of the others.
    - ``by-column``: a plant for each value of a manifest's ``column``; ``plants`` has no say then.

    Raises:
        NoPicturesError: there is nothing to deal.
        SplitError: a plant would stay empty (it is named), or a picture has no value in the column.

    """
    if not pictures:
        raise NoPicturesError("there are no training pictures to deal to plants")
    if plants < 1:
        raise SplitError("a federation needs a plant", seen=plants, accepted="1 or more")
    if partition == "by-column":
        return _by_column(pictures, column)
    groups = _groups(pictures)
    if partition == "iid":
        even = {label: [1.0 / plants] * plants for label in _classes(groups)}
        return _shares(_deal(groups, even, seed, 0), "an even share of every class")
    if partition == "by-class":
        return _shares(
            _deal(groups, _by_class(_classes(groups), plants, seed), seed, 0), "some of the classes"
        )
    for attempt in range(REDRAWS):
        dealt = _deal(groups, _dirichlet(_classes(groups), plants, alpha, seed, attempt), seed, attempt)
        if all(dealt):
            break
    return _shares(dealt, f"a Dirichlet draw with alpha {alpha:g}")


def _shares(dealt: Sequence[Group], origin: str) -> list[PlantShare]:
    empty = [f"plant-{index}" for index, members in enumerate(dealt, start=1) if not members]
    if empty:
        more = f" and {len(empty) - MOST_NAMED} more" if len(empty) > MOST_NAMED else ""
        raise SplitError(
            f"{', '.join(empty[:MOST_NAMED])}{more} would have no pictures",
            seen=f"{len(dealt)} plants, {sum(map(len, dealt))} training pictures",
            accepted="at least one group of pictures for each plant",
            remedy="fewer plants, more pictures, or for a Dirichlet partition a larger alpha",
        )
    return [
        PlantShare(f"plant-{index}", origin, tuple(sorted(members, key=lambda each: each.name)))
        for index, members in enumerate(dealt, start=1)
    ]


def check_column(pictures: Iterable[Picture], column: str) -> None:
    """Make sure that a column says of each picture whose it is; raises SplitError."""
    for picture in pictures:
        if picture.column(column) is None:
            known = {"class", "group", "split"} | set(picture.columns)
            raise SplitError(
                f"a picture has no value in the column {column}",
                seen=picture.name,
                accepted=", ".join(sorted(name for name in known if picture.column(name) is not None)),
                remedy="name another column, or give a list of pictures that has it (--manifest)",
            )


def _by_column(pictures: Sequence[CheckedPicture], column: str) -> list[PlantShare]:
    check_column((each.picture for each in pictures), column)
    values: dict[str, Group] = {}
    for each in pictures:
        values.setdefault(str(each.picture.column(column)), []).append(each)
    return [
        PlantShare(f"plant-{index}", f"{column} {value}", tuple(sorted(members, key=lambda each: each.name)))
        for index, (value, members) in enumerate(sorted(values.items()), start=1)
    ]


# -- how much of each class each plant is to get -----------------------------------------------------------


def _dirichlet(
    classes: Sequence[str], plants: int, alpha: float, seed: int, attempt: int
) -> dict[str, list[float]]:
    chance = np.random.default_rng(int.from_bytes(seed_digest("dirichlet", seed, attempt)[:8], "big"))
    # Gamma draws, normalised: the same distribution, and no division by zero when alpha is tiny.
    shares = {}
    for label in classes:
        drawn = chance.standard_gamma(alpha, size=plants) + np.finfo(float).tiny
        shares[label] = [float(each) for each in drawn / drawn.sum()]
    return shares


def _by_class(classes: Sequence[str], plants: int, seed: int) -> dict[str, list[float]]:
    """Classes to plants in turn; with more plants than classes several plants share one."""
    order = sorted(classes, key=lambda label: draw(seed, "class", label))
    owners: dict[str, list[float]] = {label: [0.0] * plants for label in classes}
    for turn in range(max(plants, len(order))):
        owners[order[turn % len(order)]][turn % plants] = 1.0
    return {label: [each / sum(shares) for each in shares] for label, shares in owners.items()}


# -- dealing whole groups ----------------------------------------------------------------------------------


def _deal(
    groups: Sequence[Group], shares: Mapping[str, Sequence[float]], seed: int, attempt: int
) -> list[Group]:
    """Large groups first, each to the plant that lacks most of its class; single ones then even it out."""
    plants = len(next(iter(shares.values())))
    counts = Counter(label for members in groups for label in [_class(members)] for _ in members)
    lacking = {label: [share * counts[label] for share in shares[label]] for label in shares}
    dealt: list[Group] = [[] for _ in range(plants)]
    order = sorted(groups, key=lambda each: (-len(each), draw(seed, "group", str(attempt), each[0].group)))
    for members in order:
        label = _class(members)
        allowed = [plant for plant in range(plants) if shares[label][plant] > 0]
        tie = {plant: draw(seed, "plant", str(attempt), label, str(plant)) for plant in allowed}
        most = max(lacking[label][plant] for plant in allowed)
        level = [plant for plant in allowed if lacking[label][plant] >= most - ROOM]
        plant = min(level, key=lambda each: (len(dealt[each]), tie[each]))
        dealt[plant] += members
        lacking[label][plant] -= len(members)
    return dealt


def _groups(pictures: Sequence[CheckedPicture]) -> list[Group]:
    found: dict[str, Group] = {}
    for each in sorted(pictures, key=lambda picture: picture.name):
        found.setdefault(each.group, []).append(each)
    return list(found.values())


def _class(members: Group) -> str:
    """The class of a group: the one that most of its pictures have."""
    counts = Counter(each.label or "" for each in members)
    return min(counts, key=lambda label: (-counts[label], label))


def _classes(groups: Sequence[Group]) -> list[str]:
    return sorted({_class(members) for members in groups})
