"""What `fedsim data` and `fedclient data` do: look through pictures and show the site report.

One function for both commands, so that a plant's engineer and a data scientist read the same thing: tables
at a terminal, JSON, and one HTML page with thumbnails. Nothing is changed, copied or sent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from fedspect import console
from fedspect.data.classes import ClassList
from fedspect.data.inspection import inspect_pictures
from fedspect.data.site_report.page import write_page
from fedspect.data.site_report.report import SiteReport, site_report
from fedspect.data.sources import find_pictures

WORKERS = 2  # threads that decode


def show_site_report(
    source: Path,
    *,
    manifest: Optional[Path] = None,
    classes: Optional[ClassList] = None,
    html: Optional[Path] = None,
    overlaps: bool = True,
    as_json: bool = False,
    cache: Optional[Path] = None,
    bit_depth: Optional[int] = None,
) -> SiteReport:
    """Inspect the pictures of ``source``, print the report, and answer it.

    Args:
        source: a folder of pictures, or a CSV or Parquet list.
        manifest: a list that tells more about the pictures of a folder.
        classes: the federation's; pictures of other classes are named, and classes without pictures too.
        html: where to write one page with thumbnails; not set: nowhere.
        overlaps: whether pictures of the same surface are looked for.
        as_json: print JSON in place of tables.
        cache: a file that makes the next look quick.
        bit_depth: of the camera, for files of 16 bits; not set: as the pictures tell it together.

    Raises:
        DataError: there are no pictures that can be used.
        StorageError: the page cannot be written.

    """
    listing = find_pictures(source, manifest=manifest, classes=classes)
    with console.progress_bar("checking pictures", shown=not as_json) as progress:
        inspection = inspect_pictures(
            listing,
            workers=WORKERS,
            progress=progress,
            overlaps=None if overlaps else False,
            cache=cache,
            bit_depth=bit_depth,
        )
    report = site_report(listing, inspection, classes=classes)
    if html is not None:
        write_page(report, inspection, html)
    if as_json:
        console.print_json(report.model_dump(mode="json"))
        return report
    console.stdout().print(listing.understood, markup=False, highlight=False, soft_wrap=True)
    for table in report.tables():
        console.print_table(table.title, table.columns, table.rows)
    if html is not None:
        console.stdout().print(f"page  {html}", markup=False, highlight=False, soft_wrap=True)
    return report
