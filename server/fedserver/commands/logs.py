"""`fedserver logs`: the server's log, and what is added to it from now on."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from fedserver.commands.options import HERE, WorkspaceOption, open_workspace
from fedserver.commands.serving import LOG
from fedspect.console import note

LOOK = 0.3  # seconds between two looks at the file


def add_to(app: typer.Typer) -> None:
    """Make it a command of ``app``."""
    app.command("logs")(logs_command)


def logs_command(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option(min=0, help="So many of the lines that are there.")] = 100,
    workspace: WorkspaceOption = HERE,
    json: Annotated[bool, typer.Option("--json", help="A JSON object a line, as they are stored.")] = False,
) -> None:
    """Print what the server said: its own sentences and the events of the rounds, oldest first."""
    from fedserver.rounds.event_log import EventTail

    opened = open_workspace(workspace)
    path = opened.logs / LOG
    tail = EventTail(path, from_start=True)
    old = EventTail(path.with_suffix(".old.jsonl"), from_start=True).new()
    rows = tail.new()
    if len(rows) < lines:
        rows = [*old, *rows]
    if not rows and not follow:
        note("nothing was said yet: no server ran on this workspace")
    for row in rows[len(rows) - min(lines, len(rows)) :]:
        _print(row, json)
    while follow:
        time.sleep(LOOK)
        for row in tail.new():
            _print(row, json)


def _print(row: Mapping[str, Any], json: bool) -> None:
    if json:
        line = json_module.dumps(row, ensure_ascii=False)
    else:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(row.get("time", 0.0))))
        line = f"{when}  {row.get('text', '')}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
