"""Options that several commands of `fedclient` share, and their checks."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from fedclient.default_home import HOME_VARIABLE
from fedspect.errors import SettingsError
from fedspect.protocol.join_token import LONGEST

HomeOption = Annotated[
    Optional[Path],
    typer.Option("--home", help="The plant's own folder (key, state).", envvar=HOME_VARIABLE),
]

WorkerPythonOption = Annotated[
    Optional[str],
    typer.Option("--worker-python", help="The interpreter that has torch, if another."),
]


def interpreter(name: str) -> str:
    """The full path of an interpreter that was given by name or path.

    Raises:
        SettingsError: there is none.

    """
    found = shutil.which(name)
    if found is None:
        raise SettingsError(
            "there is no such interpreter", seen=name, accepted="the path of a Python that has torch"
        )
    return str(Path(found).absolute())


def read_token(given: Optional[str]) -> Optional[str]:
    """A token as given; for ``-`` it is read from standard input, at a terminal without echo."""
    if given != "-":
        return given
    if sys.stdin.isatty():
        return str(typer.prompt("token", hide_input=True, err=True))
    return sys.stdin.readline(LONGEST + 1).strip()
