"""`fedclient data`: the plant's site report, for the plant's own eyes; headquarters gets counts only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from fedclient.commands.options import HomeOption
from fedclient.node.home import PlantHome
from fedspect.console import JsonOption
from fedspect.errors import SettingsError, WorkspaceError

if TYPE_CHECKING:
    from fedclient.node.membership import Membership


def data(
    source: Annotated[
        Optional[Path],
        typer.Argument(
            help="Folder of pictures, or a CSV or Parquet list.", show_default="those of this plant"
        ),
    ] = None,
    manifest: Annotated[
        Optional[Path],
        typer.Option(help="A CSV or Parquet list that tells more about the folder's pictures."),
    ] = None,
    html: Annotated[Optional[Path], typer.Option(help="Write one page with thumbnails here.")] = None,
    overlaps: Annotated[bool, typer.Option(help="Look for pictures of the same surface.")] = True,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Look through pictures: what is there, what is damaged, what overlaps, which classes are missing."""
    from fedspect.data.classes import ClassList
    from fedspect.data.site_report.show import show_site_report

    membership = _membership(PlantHome(home))
    if source is None:
        if membership is None:
            raise SettingsError(
                "which pictures?",
                accepted="a folder of pictures, or a CSV or Parquet list",
                remedy="name them: fedclient data FOLDER; a plant that has joined knows its own",
            )
        source = Path(membership.data)
    classes = None if membership is None else ClassList(tuple(membership.classes), membership.aliases)
    show_site_report(source, manifest=manifest, classes=classes, html=html, overlaps=overlaps, as_json=json)


def _membership(home: PlantHome) -> Membership | None:
    """The membership, if there is one; pictures may be inspected before joining."""
    try:
        return home.membership()
    except WorkspaceError:
        return None
