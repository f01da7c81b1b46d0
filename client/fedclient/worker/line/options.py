"""The option that all of the line's commands take."""

from __future__ import annotations

from pathlib import Path

import typer
from typing_extensions import Annotated

HomeOption = Annotated[
    Path, typer.Option("--home", help="The plant's own folder.", envvar="FEDSPECT_HOME", show_default=False)
]
