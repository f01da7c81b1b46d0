"""`fedserver init`: make the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, List, Optional

import typer

from fedspect.console import JsonOption, note, print_json, warn


def add_to(app: typer.Typer) -> None:
    """Make it a command of ``app``."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    host: Annotated[
        List[str],
        typer.Option("--host", help="A name or address by which plants reach this machine; repeat."),
    ],
    name: Annotated[
        Optional[str], typer.Option(help="The federation's name; the folder's if not set.")
    ] = None,
    classes: Annotated[str, typer.Option(help="The classes of surface, separated by commas.")] = "",
    json: JsonOption = False,
) -> None:
    """Make a workspace: certificate authority, certificate, settings, registry. Twice changes nothing."""
    from fedserver.workspace import Workspace, create

    wanted = [each.strip() for each in classes.split(",") if each.strip()]
    report = create(folder, host, name=name, classes=wanted)
    if json:
        print_json({"folder": str(folder.resolve()), "made": report.made, "kept": report.kept})
    else:
        if report.made:
            note(f"{folder}: made {', '.join(report.made)}")
        if report.kept:
            note(f"{folder}: nothing changed in {', '.join(report.kept)}: it was there")
        settings = Workspace.open(folder).settings()
        if not settings.federation.classes:
            note(f"next: set classes in {folder / 'fedserver.toml'}")
        note(f"next: fedserver invite PLANT -w {folder}    and    fedserver start -w {folder}")
    for each in report.notes:
        warn(each)
