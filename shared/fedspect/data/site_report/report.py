"""The site report: what a plant's pictures are like, and what is wrong with them.

One model serves three forms: JSON (``model_dump_json``), tables for a console (``tables``), and one HTML page
with thumbnails (``page.py``). It counts pictures, classes, sizes and groups, names the files that were left
out, and says whether one surface is found under two classes or on both sides of a split.
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from pydantic import BaseModel

from fedspect.data.classes import ClassList
from fedspect.data.inspection import Inspection
from fedspect.data.near_duplicates.overlap import group_overlapping
from fedspect.data.pictures import CONFLICTING_LABELS, DUPLICATE, CheckedPicture
from fedspect.data.site_report.findings import Finding, remarks_on
from fedspect.data.sources import Listing

MOST_GROUPS = 20
MOST_MEMBERS = 12
TRAINING = ("train", "training")


class ClassCount(BaseModel):
    """One class: its pictures, the groups that they form, and the largest of these."""

    name: str
    pictures: int
    groups: int
    largest_group: int


class SizeCount(BaseModel):
    """How many pictures have this size in pixels, these channels and bits per channel."""

    width: int
    height: int
    channels: int
    bits: int
    pictures: int


class GroupCount(BaseModel):
    """Pictures of one surface: how many of each class and split, and the first of their names."""

    name: str
    pictures: int
    classes: Dict[str, int]
    splits: Dict[str, int]
    members: List[str]


class SplitCount(BaseModel):
    """One side of a given split; ``twins`` are its pictures whose surface is in the training side too."""

    name: str
    pictures: int
    classes: Dict[str, int]
    twins: int


class FoundProblem(BaseModel):
    """A problem as in ``pictures.Problem``."""

    name: str
    kind: str
    detail: str
    left_out: bool


class Table(NamedTuple):
    """A table for a console: title, the columns' names, rows of text."""

    title: str
    columns: Tuple[str, ...]
    rows: Sequence[Tuple[str, ...]]


class SiteReport(BaseModel):
    """All that is known about a site's pictures; lists of groups are cut at MOST_GROUPS, largest first."""

    format_version: int = 1
    source: str
    understood: str = ""
    """What was understood of the source, in one sentence."""
    kind: str
    usable: int
    left_out: int
    ignored: int
    overlaps_searched: bool
    groups_known: bool
    """Whether it is known which pictures show the same surface: looked for, or told by a list."""
    classes: List[ClassCount]
    missing_classes: List[str]
    imbalance: float
    """Pictures of the largest class to those of the smallest that has any."""
    sizes: List[SizeCount]
    bit_depth: Optional[int] = None
    """The camera's, by which files of 16 bits are read; None where there are none that leave it open."""
    file_types: Dict[str, Dict[str, int]]
    """Pictures by file name suffix and class."""
    duplicates: int
    groups: int
    overlapping: int
    """Pictures that share their surface with another."""
    largest_groups: List[GroupCount]
    mixed_groups: List[GroupCount]
    """Surfaces under more than one class."""
    splits: List[SplitCount]
    shared_groups: List[GroupCount]
    """Surfaces in more than one side of a given split."""
    problems: List[FoundProblem]
    remarks: List[Finding]

    @property
    def level(self) -> str:
        """The worst of the remarks: ok, warning or failure."""
        levels = [remark.level for remark in self.remarks]
        return next((level for level in ("failure", "warning") if level in levels), "ok")

    def tables(self, *, most_problems: int = 30) -> List[Table]:
        """The report for a console."""
        classes = [
            (
                c.name,
                str(c.pictures),
                *((str(c.groups), str(c.largest_group)) if self.groups_known else ("–", "–")),
            )
            for c in self.classes
        ]
        sizes = [
            (f"{s.width} x {s.height}", str(s.channels), str(s.bits), str(s.pictures)) for s in self.sizes
        ]
        tables = [
            Table(
                "Remarks",
                ("level", "what", "what to do"),
                [(r.level, r.what, r.remedy) for r in self.remarks],
            ),
            Table("Classes", ("class", "pictures", "groups", "largest group"), classes),
            Table("Sizes", ("pixels", "channels", "bits", "pictures"), sizes),
        ]
        if self.splits:
            rows = [(s.name, str(s.pictures), str(s.twins)) for s in self.splits]
            tables.append(Table("Given split", ("side", "pictures", "twins in training"), rows))
        if self.problems:
            shown = [(p.name, p.kind, p.detail) for p in self.problems[:most_problems]]
            rest = len(self.problems) - len(shown)
            title = f"Files to look at ({rest} more are in the JSON report)" if rest else "Files to look at"
            tables.append(Table(title, ("file", "what", "detail"), shown))
        return tables


def site_report(
    listing: Listing, inspection: Inspection, *, classes: Optional[ClassList] = None
) -> SiteReport:
    """Sum up an inspection; ``classes`` (the federation's) tells which are missing."""
    pictures = inspection.pictures
    surfaces = _surfaces(inspection)
    labels = Counter(picture.label or "" for picture in pictures)
    named = classes.names if classes is not None else tuple(sorted(labels))
    groups = [_group(surface) for surface in surfaces]
    report = SiteReport(
        source=str(listing.root),
        understood=listing.understood,
        kind=listing.kind,
        usable=len(pictures),
        left_out=sum(problem.left_out for problem in inspection.problems),
        ignored=listing.ignored,
        overlaps_searched=inspection.searched,
        groups_known=inspection.searched or all(each.picture.group is not None for each in pictures),
        classes=[_class(name, surfaces) for name in named if labels[name]],
        missing_classes=[name for name in named if not labels[name]],
        imbalance=max(labels.values()) / min(labels.values()) if labels else 1.0,
        sizes=_sizes(pictures),
        bit_depth=inspection.bit_depth,
        file_types=_file_types(pictures),
        duplicates=sum(problem.kind in (DUPLICATE, CONFLICTING_LABELS) for problem in inspection.problems),
        groups=len(surfaces),
        overlapping=sum(len(surface) for surface in surfaces if len(surface) > 1),
        largest_groups=[group for group in groups if group.pictures > 1][:MOST_GROUPS],
        mixed_groups=[group for group in groups if len(group.classes) > 1][:MOST_GROUPS],
        splits=_splits(pictures, surfaces),
        shared_groups=[group for group in groups if len(group.splits) > 1][:MOST_GROUPS],
        problems=[
            FoundProblem(name=p.name, kind=p.kind, detail=p.detail, left_out=p.left_out)
            for p in inspection.problems
        ],
        remarks=[],
    )
    report.remarks = remarks_on(report)
    return report


def _surfaces(inspection: Inspection) -> List[List[CheckedPicture]]:
    """Pictures of one surface by all that is known, given groups and found overlaps; the largest first."""
    pictures = inspection.pictures
    firsts: Dict[str, int] = {}
    pairs = [(firsts.setdefault(f"group {each.group}", at), at) for at, each in enumerate(pictures)]
    pairs += [(firsts.setdefault(f"digest {each.digest}", at), at) for at, each in enumerate(pictures)]
    pairs += [(firsts[f"digest {link.first}"], firsts[f"digest {link.second}"]) for link in inspection.links]
    together: Dict[int, List[CheckedPicture]] = {}
    for root, picture in zip(group_overlapping(len(pictures), pairs), pictures):
        together.setdefault(root, []).append(picture)
    return sorted(together.values(), key=lambda members: (-len(members), members[0].name))


def _group(members: Sequence[CheckedPicture]) -> GroupCount:
    return GroupCount(
        name=min(picture.group for picture in members),
        pictures=len(members),
        classes=dict(sorted(Counter(picture.label or "" for picture in members).items())),
        splits=dict(sorted(Counter(p.picture.split for p in members if p.picture.split is not None).items())),
        members=[picture.name for picture in _mixed(members)[:MOST_MEMBERS]],
    )


def _mixed(members: Sequence[CheckedPicture]) -> List[CheckedPicture]:
    """Members by turns of class and split, so that the first few show what a group holds."""
    turns: Counter[Tuple[Optional[str], Optional[str]]] = Counter()
    ranked = []
    for member in members:
        kind = (member.label, member.picture.split)
        ranked.append((turns[kind], member.name, member))
        turns[kind] += 1
    return [member for _, _, member in sorted(ranked, key=lambda item: item[:2])]


def _class(name: str, surfaces: Sequence[Sequence[CheckedPicture]]) -> ClassCount:
    counts = [sum((picture.label or "") == name for picture in surface) for surface in surfaces]
    present = [count for count in counts if count]
    return ClassCount(name=name, pictures=sum(present), groups=len(present), largest_group=max(present))


def _sizes(pictures: Sequence[CheckedPicture]) -> List[SizeCount]:
    counts = Counter((p.width, p.height, p.channels, p.bits) for p in pictures)
    return [
        SizeCount(width=width, height=height, channels=channels, bits=bits, pictures=count)
        for (width, height, channels, bits), count in sorted(
            counts.items(), key=lambda item: (-item[1], item[0])
        )
    ]


def _file_types(pictures: Sequence[CheckedPicture]) -> Dict[str, Dict[str, int]]:
    types: Dict[str, Dict[str, int]] = {}
    for picture in pictures:
        counts = types.setdefault(PurePosixPath(picture.name).suffix.lower(), {})
        counts[picture.label or ""] = counts.get(picture.label or "", 0) + 1
    return dict(sorted(types.items()))


def _splits(
    pictures: Sequence[CheckedPicture], surfaces: Sequence[Sequence[CheckedPicture]]
) -> List[SplitCount]:
    twins: Counter[str] = Counter()
    for surface in surfaces:
        sides = Counter(picture.picture.split for picture in surface if picture.picture.split is not None)
        if any(side.lower() in TRAINING for side in sides):
            twins.update({side: count for side, count in sides.items() if side.lower() not in TRAINING})
    counts: Dict[str, Counter[str]] = {}
    for picture in pictures:
        if picture.picture.split is not None:
            counts.setdefault(picture.picture.split, Counter())[picture.label or ""] += 1
    return [
        SplitCount(name=name, pictures=sum(of.values()), classes=dict(sorted(of.items())), twins=twins[name])
        for name, of in sorted(counts.items())
    ]
