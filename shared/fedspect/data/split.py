"""Putting pictures on sides (training, test, evaluation, golden) without a leak.

Whole groups go to one side, each class is shared out in the proportions asked for, and a seed gives one
result whatever the order of the pictures. Groups of several pictures are dealt first, by a weighted draw
among the sides with room; single pictures then fill each side to its count, so the counts are exact wherever
the groups allow it.

A plant's pictures grow. Its ``SplitLedger`` remembers the side of each picture by content, so no picture ever
changes sides, and a new picture follows the group that it belongs to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from fedspect import files
from fedspect.data.pictures import SET_ASIDE, CheckedPicture, Problem
from fedspect.errors import DamagedFileError, SplitError

LEDGER_FORMAT = "fedspect split ledger 1"

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


@dataclass(frozen=True)
class LedgerSplit:
    """A plant's sides in the order of its shares, each sorted by name; what was set aside; empty sides."""

    sides: Dict[str, List[CheckedPicture]]
    set_aside: List[Problem]
    given_up: List[str]


class SplitLedger:
    """Which side each picture is on, by content hash: a JSON file on a plant's disk.

    Pictures that are gone keep their place, in case they come back.
    """

    def __init__(self, sides: Optional[Mapping[str, str]] = None) -> None:
        self._side_of: Dict[str, str] = dict(sides or {})

    @classmethod
    def load(cls, path: Path) -> SplitLedger:
        """Read a ledger; an empty one where there is no file yet.

        Raises:
            DamagedFileError: it is not what was written; pictures would change sides if it were ignored.

        """
        try:
            content = files.read_json(path)
        except FileNotFoundError:
            return cls()
        sides = content.get("sides") if isinstance(content, dict) else None
        if (
            not isinstance(sides, dict)
            or content.get("format") != LEDGER_FORMAT
            or not all(isinstance(side, str) for side in sides.values())
        ):
            raise DamagedFileError(
                "a split ledger is damaged",
                seen=path,
                accepted=LEDGER_FORMAT,
                remedy="restore it from a backup; without it, test pictures may become training pictures",
            )
        return cls(sides)

    def save(self, path: Path) -> None:
        """Write the ledger, whole or not at all; raises StorageError."""
        files.write_json(path, {"format": LEDGER_FORMAT, "sides": self._side_of})

    def side_of(self, digest: str) -> Optional[str]:
        """The side of a picture that was dealt before."""
        return self._side_of.get(digest)

    def reserve(self, digest: str, side: str) -> None:
        """Keep a side for a picture that nobody has dealt yet; one that has a side keeps it."""
        self._side_of.setdefault(digest, side)

    def assign(
        self, pictures: Sequence[CheckedPicture], shares: Mapping[str, float], *, seed: int
    ) -> LedgerSplit:
        """Give every picture its side: old ones theirs, new ones that of their group, new groups by need.

        A new picture whose group has pictures on several sides is set aside: on either side it would leak.

        Raises:
            SplitError: no pictures, shares that are no proportions, or a side that they no longer name.

        """
        names = check_shares(shares)
        if not pictures:
            raise SplitError("there are no pictures to split", accepted="at least one picture")
        gone = {self._side_of.get(each.digest, names[0]) for each in pictures} - set(names)
        if gone:
            raise SplitError(
                "pictures lie on a side that the shares do not name",
                seen=", ".join(sorted(gone)),
                accepted=", ".join(names),
                remedy="keep the names of the sides, or remove the ledger and begin anew",
            )
        sides: Dict[str, List[CheckedPicture]] = {name: [] for name in names}
        set_aside: List[Problem] = []
        untouched: List[Bundle] = []
        for group, members in _bundles(pictures, by_group=True):
            known = sorted({self._side_of[each.digest] for each in members if each.digest in self._side_of})
            if not known:
                untouched.append((group, members))
                continue
            for each in members:
                if each.digest in self._side_of:
                    sides[self._side_of[each.digest]].append(each)
                elif len(known) == 1:
                    sides[known[0]].append(each)
                else:
                    detail = f"its surface is in {' and in '.join(known)} already"
                    set_aside.append(Problem(each.name, SET_ASIDE, detail))
        aside = {problem.name for problem in set_aside}
        wanted = _targets([each for each in pictures if each.name not in aside], shares)
        for name in names:
            for label, count in count_labels(sides[name]).items():
                wanted[name][label] -= count
        dealt = deal(untouched, wanted, names, seed)
        for name in names:
            sides[name] = sorted(sides[name] + dealt[name], key=lambda item: item.name)
            self._side_of.update({each.digest: name for each in sides[name]})
        return LedgerSplit(sides, set_aside, given_up(sides))
