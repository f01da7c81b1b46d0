"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", "-w", help="The workspace's folder.", envvar="FEDSERVER_WORKSPACE"),
]
HERE = Path()
