"""Putting pictures on sides (training, test, evaluation, golden) without a leak.

Whole groups go to one side, each class is shared out in the proportions asked for, and a seed gives one
result whatever the order of the pictures. Groups of several pictures are dealt first, by a weighted draw
among the sides with room; single pictures then fill each side to its count, so the counts are exact wherever
the groups allow it.
"""

from __future__ import annotations

import hashlib
from typing import Dict, List, Mapping, Sequence, Tuple

from fedspect.data.pictures import CheckedPicture
from fedspect.errors import SplitError

Bundle = Tuple[str, List[CheckedPicture]]


def split_pictures(
    pictures: Sequence[CheckedPicture], shares: Mapping[str, float], *, seed: int, by_group: bool = True
) -> Dict[str, List[CheckedPicture]]:
    """Deal pictures to sides, class by class, whole groups together.

    ``shares`` are the sides' proportions (of any sum); the first side is served first where pictures are
    scarce, and a side may stay empty then (``given_up`` names it). ``by_group=False`` deals every picture by
    itself, as papers do.

    Returns:
        The sides in the order of ``shares``, each sorted by name.

    Raises:
        SplitError: no pictures, or shares that are no proportions.

    """
    names = check_shares(shares)
    if not pictures:
        raise SplitError("there are no pictures to split", accepted="at least one picture")
    bundles = _bundles(pictures, by_group)
    wanted = _targets(pictures, shares)
    sides = deal(bundles, wanted, names, seed)
    return {name: sorted(sides[name], key=lambda item: item.name) for name in names}


def check_shares(shares: Mapping[str, float]) -> List[str]:
    """The sides' names; raises SplitError for shares that are no proportions."""
    if not shares or any(not share > 0 or share == float("inf") for share in shares.values()):
        raise SplitError(
            "the shares of a split cannot be used", seen=dict(shares), accepted="numbers above 0"
        )
    return list(shares)


def given_up(sides: Mapping[str, Sequence[CheckedPicture]]) -> List[str]:
    """The sides that got no picture: what a plant that is too small had to give up."""
    return [name for name, members in sides.items() if not members]


def draw(seed: int, *words: str) -> float:
    """A number in [0, 1) that depends on the seed and some words only."""
    content = "\x1f".join((str(seed), *words)).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big") / float(1 << 56)


def deal(
    bundles: Sequence[Bundle], wanted: Mapping[str, Mapping[str, float]], names: Sequence[str], seed: int
) -> Dict[str, List[CheckedPicture]]:
    """Deal bundles to sides; ``wanted[side][label]`` is how many pictures of a class a side still lacks."""
    room = {name: dict(wanted[name]) for name in names}
    sides: Dict[str, List[CheckedPicture]] = {name: [] for name in names}
    order = sorted(
        bundles, key=lambda bundle: (len(bundle[1]) == 1, draw(seed, "order", bundle[0]), bundle[0])
    )
    for key, members in order:
        counts = count_labels(members)
        name = _choose(room, counts, names, draw(seed, "side", key))
        sides[name].extend(members)
        for label, count in counts.items():
            room[name][label] = room[name].get(label, 0.0) - count
    return sides


def count_labels(members: Sequence[CheckedPicture]) -> Dict[str, int]:
    """How many pictures of each class; a picture without one counts under the empty name."""
    counts: Dict[str, int] = {}
    for member in members:
        counts[member.label or ""] = counts.get(member.label or "", 0) + 1
    return counts


def _choose(
    room: Mapping[str, Mapping[str, float]], counts: Mapping[str, int], names: Sequence[str], number: float
) -> str:
    lacking = {
        name: [room[name].get(label, 0.0) - count for label, count in counts.items()] for name in names
    }
    fitting = [name for name in names if min(lacking[name]) >= -1e-9]
    if not fitting:
        return max(names, key=lambda name: (sum(lacking[name]), -names.index(name)))
    weights = [sum(room[name].get(label, 0.0) for label in counts) for name in fitting]
    place = number * sum(weights)
    for name, weight in zip(fitting, weights):
        place -= weight
        if place < 0:
            return name
    return fitting[-1]


def _bundles(pictures: Sequence[CheckedPicture], by_group: bool) -> List[Bundle]:
    bundles: Dict[str, List[CheckedPicture]] = {}
    for picture in sorted(pictures, key=lambda item: item.name):
        bundles.setdefault(picture.group if by_group else picture.name, []).append(picture)
    return list(bundles.items())


def _targets(pictures: Sequence[CheckedPicture], shares: Mapping[str, float]) -> Dict[str, Dict[str, float]]:
    """Whole numbers per side and class: largest remainders, carried on so that the totals fit too."""
    total = sum(shares.values())
    names = list(shares)
    carry = dict.fromkeys(names, 0.0)
    targets: Dict[str, Dict[str, float]] = {name: {} for name in names}
    for label, count in sorted(count_labels(pictures).items()):
        exact = {name: count * shares[name] / total for name in names}
        given = {name: int(exact[name] + 1e-9) for name in names}
        if count and not given[names[0]]:
            given[names[0]] = 1
        for _ in range(count - sum(given.values())):
            hungry = max(
                names, key=lambda name: (carry[name] + exact[name] - given[name], -names.index(name))
            )
            given[hungry] += 1
        for name in names:
            carry[name] += exact[name] - given[name]
            targets[name][label] = float(given[name])
    return targets
