"""`fedclient pause` and `resume`: keep training off the device, and let it go on."""

from __future__ import annotations

import re
import time
from typing import Annotated, Optional

import typer

from fedclient.commands.options import HomeOption
from fedclient.node.home import PlantHome
from fedspect.console import note
from fedspect.errors import SettingsError

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


def pause(
    time_: Annotated[
        Optional[str],
        typer.Option(
            "--for", help="For so long: 90m, 8h, 2d; not set: until `fedclient resume`.", metavar="TIME"
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Keep training off this device: it stops at its next batch, and stays so over restarts."""
    from fedclient.yield_policy import PauseFile

    plant_home = PlantHome(home)
    plant_home.membership()
    now = time.time()
    until = None if time_ is None else now + duration(time_)
    PauseFile(plant_home.folder).put(since=now, until=until)
    end = "" if until is None else f" until {time.strftime('%Y-%m-%d %H:%M', time.localtime(until))}"
    note(f"paused{end}; `fedclient resume` ends it. The line and what it runs are untouched")


def resume(home: HomeOption = None) -> None:
    """Let training use this device again, in its hours and limits."""
    from fedclient.yield_policy import PauseFile

    plant_home = PlantHome(home)
    plant_home.membership()
    note("training may run again" if PauseFile(plant_home.folder).remove() else "the plant was not paused")


def duration(text: str) -> float:
    """Seconds in a time such as ``90m``.

    Raises:
        SettingsError: it is none.

    """
    found = re.fullmatch(r"\s*(\d{1,6}(?:\.\d+)?)\s*([mhd])\s*", text)
    if found is None or float(found[1]) <= 0:
        raise SettingsError("not a time", seen=repr(text), accepted="minutes, hours or days: 90m, 8h, 2d")
    return float(found[1]) * _UNITS[found[2]]
