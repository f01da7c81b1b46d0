"""The site report as one HTML page that needs nothing beside it: thumbnails lie in it as ``data:`` addresses.

The number of thumbnails is bounded, so a million pictures give a page that opens. Names come from a plant's
disk and are escaped.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from PIL import Image

from fedspect import files
from fedspect.data.decode import read_picture
from fedspect.data.inspection import Inspection
from fedspect.data.pictures import CheckedPicture
from fedspect.data.site_report.report import GroupCount, SiteReport
from fedspect.errors import PictureError, SettingsError

TEMPLATE = Path(__file__).with_name("site_report.html")
SIDE = 96
SAMPLES = 60
SAMPLES_PER_CLASS = 8
GROUPS = 6
MEMBERS = 8
MOST_PROBLEMS = 300


class Thumbnail(NamedTuple):
    """A small picture as a ``data:`` address, its file's name, and what stands below it."""

    uri: str
    name: str
    caption: str


def write_page(report: SiteReport, inspection: Inspection, path: Path) -> None:
    """Write the page; raises SettingsError without Jinja, StorageError where it cannot be written."""
    files.write_text(path, render_page(report, inspection))


def render_page(report: SiteReport, inspection: Inspection) -> str:
    """The page as HTML text; raises SettingsError where Jinja is not installed."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise SettingsError(
            "the HTML page needs Jinja, which is not installed",
            remedy="install fedspect[console], or ask for JSON",
        ) from error
    by_name = {picture.name: picture for picture in inspection.pictures}
    galleries = [
        ("Surfaces under several classes", report.mixed_groups[:GROUPS]),
        ("Surfaces on both sides of the split", report.shared_groups[:GROUPS]),
        ("Surfaces with the most pictures", report.largest_groups[:GROUPS]),
    ]
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    return template.render(
        report=report,
        largest=max((row.pictures for row in report.classes), default=1),
        samples=_samples(report, inspection),
        galleries=[(title, _members(groups, by_name, report)) for title, groups in galleries if groups],
        most_problems=MOST_PROBLEMS,
    )


def _samples(report: SiteReport, inspection: Inspection) -> List[Tuple[str, List[Thumbnail]]]:
    """Pictures of each class, of as many surfaces as there are, evenly taken."""
    each = max(1, min(SAMPLES_PER_CLASS, SAMPLES // max(1, len(report.classes))))
    samples = []
    for row in report.classes[:SAMPLES]:
        of_class = {p.group: p for p in reversed(inspection.pictures) if (p.label or "") == row.name}
        chosen = sorted(of_class.values(), key=lambda picture: picture.name)
        step = max(1, len(chosen) // each)
        samples.append((row.name, _thumbnails(chosen[::step][:each], report.bit_depth)))
    return samples


def _members(
    groups: Sequence[GroupCount], by_name: Dict[str, CheckedPicture], report: SiteReport
) -> List[Tuple[GroupCount, List[Thumbnail]]]:
    return [
        (group, _thumbnails([by_name[name] for name in group.members[:MEMBERS]], report.bit_depth))
        for group in groups
    ]


def _thumbnails(pictures: Sequence[CheckedPicture], bit_depth: Optional[int]) -> List[Thumbnail]:
    thumbnails = []
    for picture in pictures:
        try:
            image = Image.fromarray(read_picture(picture.path, channels=3, bit_depth=bit_depth))
        except PictureError:
            continue  # it has gone since it was checked
        image.thumbnail((SIDE, SIDE))
        content = io.BytesIO()
        image.save(content, "JPEG", quality=80)
        uri = "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
        thumbnails.append(Thumbnail(uri, picture.name, picture.name.rsplit("/", 1)[-1]))
    return thumbnails
