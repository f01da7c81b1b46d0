"""The option that all of the line's commands take."""

from __future__ import annotations

from pathlib import Path

import typer
from typing_extensions import Annotated

from fedclient.default_home import HOME_VARIABLE, default_home

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        help="The plant's own folder.",
        envvar=HOME_VARIABLE,
        default_factory=default_home,
        show_default=False,
    ),
]
