"""Findings of a site report as sentences, each with what to do about it.

Each remark has a level: *failure* stops training, *warning* makes its result doubtful, *ok* is worth knowing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Callable, Iterator, List

from pydantic import BaseModel
from typing_extensions import Literal

from fedspect.data.pictures import (
    ALMOST_BLACK,
    ALMOST_WHITE,
    BEYOND_DEPTH,
    CLASS_SPELLING,
    CONFLICTING_LABELS,
    CROSSING_GROUPS,
    EMPTY_CLASS,
    IGNORED,
    MASK,
    UNKNOWN_CLASS,
)

if TYPE_CHECKING:
    from fedspect.data.site_report.report import SiteReport

FEW_PICTURES = 10
FEW_GROUPS = 3
IMBALANCE = 5.0
MOST_UNKNOWN = 5  # classes that are named in remarks of their own
SMALLEST_SIDE = 64
STRETCH = 1.5
TELLING_SHARE = 0.9
TELLING_COUNT = 10


class Finding(BaseModel):
    """One sentence on the pictures, and one on what to do; ``level`` is ok, warning or failure."""

    level: Literal["ok", "warning", "failure"]
    what: str
    remedy: str = ""


def several(count: int, one: str, many: str) -> str:
    """``1 file is ...``, ``4 files are ...``."""
    return f"{count} {one if count == 1 else many}"


def remarks_on(report: SiteReport) -> List[Finding]:
    """All remarks, failures first."""
    order = ("failure", "warning", "ok")
    found = [remark for part in PARTS for remark in part(report)]
    if not found:
        found = [Finding(level="ok", what=f"{report.usable} pictures, nothing to complain of")]
    return sorted(found, key=lambda remark: order.index(remark.level))


def _enough(report: SiteReport) -> Iterator[Finding]:
    if not report.usable:
        yield Finding(level="failure", what="no picture can be used", remedy="see the files below")
    elif len(report.classes) < 2:
        yield Finding(
            level="failure",
            what=f"there is one class only: {report.classes[0].name}",
            remedy="add pictures of at least one more class",
        )


def _left_out(report: SiteReport) -> Iterator[Finding]:
    kinds = Counter(problem.kind for problem in report.problems if problem.left_out)
    if kinds:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        yield Finding(
            level="warning", what=f"files left out: {listed}", remedy="mend or remove them; the rest is used"
        )


def _not_used(report: SiteReport) -> Iterator[Finding]:
    for kind, level, what in (
        (EMPTY_CLASS, "warning", "no picture in the class folders"),
        (MASK, "ok", "masks, which are no pictures, in"),
        (IGNORED, "ok", "ignored, for they are no pictures by their names:"),
    ):
        names = [problem.name for problem in report.problems if problem.kind == kind]
        if names:
            more = f" and {len(names) - MOST_UNKNOWN} more" if len(names) > MOST_UNKNOWN else ""
            listed = f"{what} {', '.join(names[:MOST_UNKNOWN])}{more}"
            yield Finding(level=level, what=listed)


def _classes(report: SiteReport) -> Iterator[Finding]:
    if report.missing_classes:
        yield Finding(
            level="warning",
            what=f"no pictures of {', '.join(report.missing_classes)}",
            remedy="others may have them; this site's own test says nothing about them",
        )
    unknown = sorted({problem.detail for problem in report.problems if problem.kind == UNKNOWN_CLASS})
    for detail in unknown[:MOST_UNKNOWN]:
        yield Finding(
            level="warning", what=detail, remedy="rename it, or add it as another name of a class (pit=hole)"
        )
    for problem in report.problems:
        if problem.kind == CLASS_SPELLING:
            yield Finding(level="warning", what=problem.detail, remedy="give the class one name")
    small = [c.name for c in report.classes if c.pictures < FEW_PICTURES or c.groups < FEW_GROUPS]
    if small:
        yield Finding(
            level="warning",
            what=f"too little to judge {', '.join(small)} by",
            remedy=f"at least {FEW_PICTURES} pictures of {FEW_GROUPS} different surfaces a class",
        )
    if report.imbalance > IMBALANCE:
        yield Finding(
            level="warning",
            what=f"the largest class has {report.imbalance:.0f} times the pictures of the smallest",
            remedy="train with class weights, and read the results class by class",
        )


def _groups(report: SiteReport) -> Iterator[Finding]:
    if not report.groups_known:
        yield Finding(
            level="warning",
            what="nobody looked for pictures of the same surface, so each counts as a group of its own",
            remedy="leave out --no-overlaps, or name a list with a column group",
        )
    if report.duplicates:
        yield Finding(
            level="warning",
            what=several(report.duplicates, "file is a copy of another", "files are copies of others"),
            remedy="keep one of each",
        )
    conflicts = sum(problem.kind == CONFLICTING_LABELS for problem in report.problems)
    if conflicts:
        yield Finding(
            level="warning",
            what=several(
                conflicts,
                "file has an equal twin in another class",
                "files have an equal twin in another class",
            ),
            remedy="decide which is right",
        )
    if report.overlapping:
        yield Finding(
            level="warning",
            what=f"{report.overlapping} of {report.usable} pictures share their surface with another "
            f"({report.groups} surfaces in all)",
            remedy="split by whole groups, as Fedspect does; a random split flatters",
        )
    if report.mixed_groups:
        yield Finding(
            level="warning",
            what=several(
                len(report.mixed_groups),
                "surface is found under several classes",
                "surfaces are found under several classes",
            ),
            remedy="look at their labels; two defects side by side are no mistake",
        )
    crossing = sum(problem.kind == CROSSING_GROUPS for problem in report.problems)
    if crossing:
        yield Finding(
            level="warning",
            what=several(
                crossing,
                "overlap joins groups that the list keeps apart",
                "overlaps join groups that the list keeps apart",
            ),
            remedy="leave the column group out to group by what is seen",
        )


def _splits(report: SiteReport) -> Iterator[Finding]:
    for side in report.splits:
        if side.twins:
            yield Finding(
                level="warning",
                what=f"{side.twins} of {side.pictures} {side.name} pictures show a surface of training too",
                remedy="results on them flatter; split by whole groups",
            )


def _files(report: SiteReport) -> Iterator[Finding]:
    for suffix, classes in report.file_types.items():
        count = sum(classes.values())
        most = max(classes, key=lambda name: classes[name])
        elsewhere = report.usable - count
        if count < TELLING_COUNT or not elsewhere or len(report.classes) < 2:
            continue
        expected = sum(c.pictures for c in report.classes if c.name == most) / report.usable
        if classes[most] >= TELLING_SHARE * count and expected < TELLING_SHARE / 2:
            yield Finding(
                level="warning",
                what=f"{classes[most]} of {count} {suffix} files are {most}: their type gives the class away",
                remedy="a network may learn the compression; save all classes in one format",
            )
    if any(min(size.width, size.height) < SMALLEST_SIDE for size in report.sizes):
        yield Finding(
            level="warning", what=f"pictures smaller than {SMALLEST_SIDE} pixels", remedy="export them larger"
        )
    wide = sum(
        size.pictures
        for size in report.sizes
        if max(size.width, size.height) > STRETCH * min(size.width, size.height)
    )
    if wide:
        yield Finding(
            level="ok",
            what=several(
                wide,
                "picture is far from square; it is stretched to a square",
                "pictures are far from square; they are stretched to a square",
            ),
            remedy="cut them",
        )


def _light(report: SiteReport) -> Iterator[Finding]:
    kinds = Counter(problem.kind for problem in report.problems)
    depth = "" if report.bit_depth is None else f", read as {report.bit_depth} bits"
    for kind in (ALMOST_BLACK, ALMOST_WHITE):
        if kinds[kind]:
            yield Finding(
                level="warning",
                what=f"{kinds[kind]} of {report.usable} pictures are {kind}{depth}: they show no surface",
                remedy="remove them if light or camera failed; else declare the camera's depth (bit_depth)",
            )
    if kinds[BEYOND_DEPTH]:
        yield Finding(
            level="warning",
            what=f"{kinds[BEYOND_DEPTH]} of {report.usable} pictures are brighter than {report.bit_depth} bits, "
            "the camera's depth: what is beyond is white",
            remedy="save all pictures alike, or declare the camera's depth (bit_depth)",
        )
    if report.bit_depth is not None:
        yield Finding(level="ok", what=f"files of 16 bits are read as {report.bit_depth} bits, all alike")


PARTS: List[Callable[[SiteReport], Iterator[Finding]]] = [
    _enough,
    _left_out,
    _not_used,
    _classes,
    _groups,
    _splits,
    _files,
    _light,
]
