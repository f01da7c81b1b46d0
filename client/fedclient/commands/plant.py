"""The commands about the plant itself: join, stop, leave and the like."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fedclient.commands.data import data
from fedclient.commands.doctor import doctor
from fedclient.commands.join import join
from fedclient.commands.options import HomeOption
from fedclient.commands.pause import pause, resume
from fedclient.commands.status import status
from fedclient.node.home import PlantHome
from fedspect.console import note

STOPS_WITHIN = 60.0  # seconds


def add_to(app: typer.Typer) -> None:
    """Make these commands of ``app``, in the order in which help shows them."""
    for command in (join, status, doctor, data, pause, resume, stop, leave):
        app.command()(command)


def stop(home: HomeOption = None) -> None:
    """End the running plant; `fedclient join` brings it back."""
    if PlantHome(home).occupied().end(STOPS_WITHIN):
        note("stopped")
    else:
        note("the plant is not running")


def leave(
    home: HomeOption = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Leave here even if headquarters cannot be told.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Leave the federation for good: headquarters forgets the key, and so does this device."""
    plant_home = PlantHome(home)
    if not yes and sys.stdin.isatty():
        typer.confirm("Leave for good? Coming back needs a new token", abort=True, err=True)
    if not forget:
        from fedclient.node.enrolment.enrol import returned

        with returned(plant_home, plant_home.membership(), stays=False) as session:
            session.leave()
    plant_home.occupied().end(STOPS_WITHIN)
    plant_home.forget()
    note("left; pictures and what was learned here are untouched")
