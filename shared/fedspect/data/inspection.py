"""Decoding every listed picture once: what is good, what is wrong, and what belongs together.

A picture with a fault is named with the kind of fault and left out; the rest goes on. Good pictures get a
content hash and a group: the manifest's where it gives one, else pictures of the same piece of surface share
a group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np

from fedspect.data.checking import Bad, Good, check_all
from fedspect.data.decode import read_bytes, read_header
from fedspect.data.depth import common_depth
from fedspect.data.inspection_cache import InspectionCache, OverlapLink
from fedspect.data.near_duplicates.high_pass import HighPassImages
from fedspect.data.near_duplicates.overlap import common_reduction, find_overlaps, group_overlapping
from fedspect.data.pictures import (
    ALMOST_BLACK,
    ALMOST_WHITE,
    BEYOND_DEPTH,
    CONFLICTING_LABELS,
    CROSSING_GROUPS,
    DUPLICATE,
    TOO_LARGE,
    CheckedPicture,
    Picture,
    Problem,
)
from fedspect.data.sources import Listing
from fedspect.errors import PictureError

Progress = Callable[[int, int], None]
FOUND = "same-"
"""How the names of groups begin that were found here and not given."""
SAMPLE = 200
"""So many headers tell the usual size of a picture."""
DARK, LIGHT = 16, 239
"""A picture without a grey level above, or below, is almost black, or white: it shows no surface."""


@dataclass(frozen=True)
class Inspection:
    """The good pictures in the listing's order, every problem (the listing's first), and the overlaps found.

    ``links`` name pictures by their digest; they hold each group together and are not all pairs of it.
    ``searched`` says whether overlaps were looked for, ``reduction`` by how much pictures were reduced for
    that. ``bit_depth`` is the camera's, as it was declared or else as the pictures tell it together; None where no file
    leaves it open.
    """

    pictures: List[CheckedPicture]
    problems: List[Problem]
    links: List[OverlapLink] = field(default_factory=list)
    searched: bool = False
    reduction: int = 1
    bit_depth: Optional[int] = None


def inspect_pictures(
    listing: Listing,
    *,
    workers: int = 1,
    progress: Optional[Progress] = None,
    overlaps: Optional[bool] = None,
    cache: Optional[Path] = None,
    bit_depth: Optional[int] = None,
) -> Inspection:
    """Decode, hash and group the pictures of a listing.

    ``workers`` threads decode; ``progress`` is told (done, all) in pictures, of which each counts half
    when it is checked and half when it is compared. Overlaps are looked for where the manifest
    does not group every picture, always or never by ``overlaps``; a group that the manifest gives stays as it
    is. ``cache`` names a file that makes the next inspection quick. ``bit_depth``: the camera's, if declared.

    Raises:
        StorageError: the cache cannot be written.

    """
    search = overlaps if overlaps is not None else any(picture.group is None for picture in listing.pictures)
    known = InspectionCache.load(cache)
    if search and known.reduction is None:
        known.reduction = _usual_reduction(listing.pictures)
    reduction = known.reduction or 1
    count = len(listing.pictures)
    halves = 2 if search else 1  # checking takes about as long as comparing
    reliefs = HighPassImages(reduction)
    good: List[Good] = []
    problems = list(listing.problems)
    changed = False
    checked = check_all(listing.pictures, workers, known, reduction if search else None)
    for done, result in enumerate(checked, start=1):
        if isinstance(result, Bad):
            problems.append(result.problem)
            digest = result.digest
            if digest is not None and result.problem.kind != TOO_LARGE and digest not in known.faults:
                known.faults[digest] = (result.problem.kind, result.problem.detail)
                changed = True
        else:
            changed |= _remember(result, known)
            if result.relief is not None:
                reliefs.keep(result.digest, result.relief)
            good.append(Good(result.picture, result.digest, result.header, result.levels))
        if progress is not None:
            progress(done // halves, count)
    if search:
        paths = {each.digest: each.picture.path for each in good}
        share_done = None if progress is None else _second_half(progress, count)
        changed |= _compare(list(paths), known, lambda digest: reliefs.get(digest, paths[digest]), share_done)
    if cache is not None and changed:
        known.save(cache)
    present = {each.digest for each in good}
    links = [link for link in known.links if search and link.first in present and link.second in present]
    pictures = _grouped(good, links)
    problems.extend(_contradictions(pictures, links))
    depth = bit_depth or common_depth(each.levels for each in good)
    problems.extend(_unseen(good, depth))
    if progress is not None:
        progress(count, count)
    return Inspection(pictures, problems, links, search, reduction, depth)


def _remember(result: Good, known: InspectionCache) -> bool:
    """Whether there was something new to remember."""
    news = result.digest not in known.headers
    known.headers[result.digest], known.levels[result.digest] = result.header, result.levels
    if result.keypoints is not None and result.digest not in known.keypoints:
        known.keypoints[result.digest] = result.keypoints
        news = True
    return news


def _second_half(progress: Progress, count: int) -> Callable[[float], None]:
    return lambda share: progress(count // 2 + int(share * (count // 2)), count)


def _compare(
    digests: List[str],
    known: InspectionCache,
    relief_of: Callable[[str], np.ndarray],
    progress: Optional[Callable[[float], None]],
) -> bool:
    """Find the overlaps that are not known yet; whether there was anything to do."""
    if known.compared == set(digests):
        return False
    if not known.compared <= set(digests):  # what held a group together may be gone
        known.links, known.compared = [], set()
    fresh = [digest not in known.compared for digest in digests]
    keypoints = [known.keypoints[digest] for digest in digests]
    found = find_overlaps(
        keypoints, lambda number: relief_of(digests[number]), fresh=fresh, progress=progress
    )
    for each in found:
        first, second = digests[each.first], digests[each.second]
        known.links.append(
            OverlapLink(
                first, second, each.rows, each.columns, each.share, each.correlation, each.significance
            )
        )
    known.compared = set(digests)
    return True


def _grouped(good: Sequence[Good], links: Sequence[OverlapLink]) -> List[CheckedPicture]:
    """Join equal pictures, overlapping ones and those of one group in the manifest.

    A group that the manifest gives stays; others take the name of such a group that they are joined to, else
    that of their smallest digest.
    """
    firsts: Dict[str, int] = {}
    pairs = [(firsts.setdefault(f"digest {each.digest}", at), at) for at, each in enumerate(good)]
    pairs += [
        (firsts.setdefault(f"group {each.picture.group}", at), at)
        for at, each in enumerate(good)
        if each.picture.group is not None
    ]
    pairs += [(firsts[f"digest {link.first}"], firsts[f"digest {link.second}"]) for link in links]
    roots = group_overlapping(len(good), pairs)
    names: Dict[int, str] = {}
    for root, each in sorted(zip(roots, good), key=lambda item: item[1].digest):
        names.setdefault(root, f"{FOUND}{each.digest[:12]}")
    given = sorted((each.picture.group, root) for root, each in zip(roots, good) if each.picture.group)
    names.update({root: group for group, root in reversed(given)})
    return [
        CheckedPicture(
            each.picture,
            each.digest,
            each.header.width,
            each.header.height,
            each.header.channels,
            each.header.bits,
            each.picture.group or names[root],
            each.levels,
        )
        for root, each in zip(roots, good)
    ]


def _contradictions(pictures: Sequence[CheckedPicture], links: Sequence[OverlapLink]) -> Iterator[Problem]:
    """Equal pictures, equal pictures of different classes, and overlaps between groups of the manifest."""
    firsts: Dict[str, CheckedPicture] = {}
    for picture in pictures:
        first = firsts.setdefault(picture.digest, picture)
        if first is picture:
            continue
        if first.label != picture.label:
            yield Problem(
                picture.name, CONFLICTING_LABELS, f"{picture.label}, but {first.name} is {first.label}"
            )
        else:
            yield Problem(picture.name, DUPLICATE, f"the same file as {first.name}")
        if first.group != picture.group:
            yield Problem(
                picture.name, CROSSING_GROUPS, f"in {picture.group}, but {first.name} in {first.group}"
            )
    for link in links:
        first, second = firsts[link.first], firsts[link.second]
        if first.group != second.group:
            yield Problem(
                second.name,
                CROSSING_GROUPS,
                f"in {second.group}, but {first.name} in {first.group} overlaps it by {link.share:.0%}",
            )


def _unseen(good: Sequence[Good], bit_depth: Optional[int]) -> Iterator[Problem]:
    """Pictures that show no surface, or not all of it, at the camera's depth."""
    for each in good:
        darkest, brightest = each.levels.shown(bit_depth)
        name = each.picture.name
        if brightest < DARK:
            yield Problem(name, ALMOST_BLACK, f"its brightest grey level is {brightest} of 255")
        elif darkest > LIGHT:
            yield Problem(name, ALMOST_WHITE, f"its darkest grey level is {darkest} of 255")
        elif each.levels.depth is None and bit_depth is not None and each.levels.needed > bit_depth:
            detail = f"it needs {each.levels.needed} bits, the camera's depth is {bit_depth}"
            yield Problem(name, BEYOND_DEPTH, detail)


def _usual_reduction(pictures: Sequence[Picture]) -> int:
    sizes = []
    for picture in pictures[:: max(1, len(pictures) // SAMPLE)]:
        try:
            header = read_header(read_bytes(picture.path), picture.path)
        except PictureError:
            continue
        sizes.append((header.width, header.height))
    return common_reduction(sizes)
