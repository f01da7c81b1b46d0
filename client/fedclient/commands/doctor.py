"""`fedclient doctor`: checks with their remedies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from fedclient.commands.options import HomeOption, WorkerPythonOption, read_token
from fedclient.node.home import PlantHome
from fedspect.console import JsonOption, print_json, stdout

STYLE = {"ok": "green", "warning": "yellow", "failure": "red"}


def doctor(
    token: Annotated[
        Optional[str],
        typer.Argument(help="A line from headquarters, to look before joining; - reads it unseen."),
    ] = None,
    data: Annotated[Optional[Path], typer.Option("--data", help="Pictures to look at.")] = None,
    home: HomeOption = None,
    worker_python: WorkerPythonOption = None,
    json: JsonOption = False,
) -> None:
    """Look for what may keep this device from taking part; the exit code is the first failure's."""
    from rich.text import Text

    from fedclient.node.doctor import examine, worst
    from fedspect.protocol.join_token import decode

    token = read_token(token)
    checks = []
    console = stdout()
    decoded = None if token is None else decode(token)
    for check in examine(PlantHome(home), data=data, worker_python=worker_python, token=decoded):
        checks.append(check)
        if not json:
            line = Text(f"{check.level:8}", style=STYLE[check.level])
            line.append(f"{check.name}: {check.found}", style="default")
            console.print(line, soft_wrap=True)
            if check.remedy:
                console.print(Text(f"{'':8}-> {check.remedy}"), soft_wrap=True)
    if json:
        print_json([check.as_dict() for check in checks])
    raise typer.Exit(worst(checks))
