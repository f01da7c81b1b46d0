"""`fedserver report`: one HTML page, the same as JSON, and TensorBoard's events."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path
from typing import Annotated, Optional

import typer

from fedserver.commands.options import HERE, WorkspaceOption, open_workspace
from fedspect import files
from fedspect.console import JsonOption, note, print_json, stdout, warn
from fedspect.errors import WorkspaceError

PAGE, FACTS, EVENTS = "report.html", "report.json", "tensorboard"


def add_to(app: typer.Typer) -> None:
    """Make it a command of ``app``."""
    app.command("report")(report_command)


def report_command(
    run: Annotated[
        Optional[str], typer.Option(help="Which run: run-0001 or 1.", show_default="the newest")
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option(help="Folder for the report.", show_default="reports/ in the workspace"),
    ] = None,
    open_nothing: Annotated[
        bool, typer.Option("--open-nothing", help="Do not show the page in a browser.")
    ] = False,
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Write a report of a run: accuracy by plant before and after, what joining gained, bytes, times, troubles.

    At any time, also while rounds are going on; an earlier report of the same run gives way.
    """
    from fedserver.report.events import write_events
    from fedserver.report.facts import gather
    from fedserver.report.page import render
    from fedserver.storage.runs import named_run

    opened = open_workspace(workspace)
    folder = named_run(opened.runs, run)
    place = output or opened.folder / "reports" / folder.name
    _check_place(place)
    report = gather(opened, folder)
    files.write_json(place / FACTS, report.model_dump(mode="json"))
    files.write_text(place / PAGE, render(report))
    events = write_events(report, place / EVENTS)
    if json:
        made = {"page": place / PAGE, "facts": place / FACTS, "events": place / EVENTS if events else None}
        print_json({**made, **report.model_dump(mode="json", exclude={"rounds", "notes"})})
        return
    if not events:
        warn("no event files for TensorBoard: the package tensorboard is not installed")
    note(f"{place / PAGE}")
    if not open_nothing and _has_screen():
        webbrowser.open((place / PAGE).resolve().as_uri())


def _check_place(place: Path) -> None:
    """Refuse a folder that holds something else; an earlier report is replaced."""
    held = sorted(each.name for each in place.iterdir() if each.name[0] != ".") if place.is_dir() else []
    if held and FACTS not in held:
        raise WorkspaceError(
            "this folder holds something else than a report",
            seen=f"{place}: {', '.join(held[:5])}",
            accepted="a new or an empty folder, or one with an earlier report",
            remedy="choose another --output",
        )


def _has_screen() -> bool:
    """Whether there is a display that a browser could open on."""
    shown = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return stdout().is_terminal and shown
