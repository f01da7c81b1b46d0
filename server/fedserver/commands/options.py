"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from click.core import ParameterSource

if TYPE_CHECKING:
    from fedserver.workspace import Workspace


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


def open_workspace(folder: Path) -> Workspace:
    """The workspace in this folder; its imports take longer than `fedserver --help` may."""
    from fedserver.workspace import Workspace

    return Workspace.open(folder)
