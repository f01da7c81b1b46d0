"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from click.core import ParameterSource


def _nearest(context: typer.Context, value: Path) -> Path:
    """The folder after the command itself, or else the one after its group: `plants -w hq show plant-a`."""
    if context.get_parameter_source("workspace") is ParameterSource.COMMANDLINE:
        context.obj = value  # which the group's commands inherit
    return context.obj if isinstance(context.obj, Path) else value


WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        help="The workspace's folder.",
        envvar="FEDSERVER_WORKSPACE",
        callback=_nearest,
    ),
]
HERE = Path()
