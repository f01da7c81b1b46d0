"""`fedclient join`: in the foreground until told to stop, or in the background with ``--detach``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from fedclient.commands.options import HomeOption, WorkerPythonOption, interpreter, read_token
from fedclient.node.home import PlantHome
from fedspect.background import detach
from fedspect.console import note
from fedspect.errors import DataError, NoPicturesError, SettingsError
from fedspect.graceful_shutdown import stop_event
from fedspect.protocol.join_token import JoinToken, decode

if TYPE_CHECKING:
    from fedclient.commands.live import JoinView

STARTS_WITHIN = 300.0  # seconds; looking at many pictures takes some
UP = ("joined", "working", "idle", "waiting", "lost")
YIELDING = "Yielding to the line (kept in plant.toml)"


def join(
    token: Annotated[
        Optional[str],
        typer.Argument(help="The line from headquarters, or - to read it unseen; not needed again."),
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option("--data", help="Folder of pictures, or a CSV or Parquet list.")
    ] = None,
    home: HomeOption = None,
    worker_python: WorkerPythonOption = None,
    wait: Annotated[
        Optional[float], typer.Option(help="Seconds to wait for headquarters at first; not set: for ever.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background.")] = False,
    hours: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Train only in these hours: 22:00-06:00; repeat, or put commas between.",
            metavar="HH:MM-HH:MM",
            rich_help_panel=YIELDING,
        ),
    ] = None,
    memory_limit: Annotated[
        Optional[int],
        typer.Option(help="MiB of memory that training may take; 0: no limit.", rich_help_panel=YIELDING),
    ] = None,
    load_limit: Annotated[
        Optional[int],
        typer.Option(
            help="Percent of the processors that others may use while it trains; 0: no limit.",
            rich_help_panel=YIELDING,
        ),
    ] = None,
) -> None:
    """Join a federation with a token, or come back without one, and take part in its rounds."""
    plant_home = PlantHome(home)
    plant_home.occupied().check()
    token = read_token(token)
    decoded = None if token is None else decode(token)
    if decoded is None:
        plant_home.membership()
    elif data is None and not plant_home.membership_path.exists():
        raise SettingsError(
            "joining needs to know where the pictures are", remedy="add --data FOLDER to the command"
        )
    if data is not None and not data.exists():
        raise NoPicturesError("there is no such folder of pictures", seen=data)
    if data is not None:
        _say_what_was_understood(data)
    if worker_python is not None:
        worker_python = interpreter(worker_python)
    plant_home.prepare()
    _keep_settings(
        plant_home,
        {"training.hours": hours, "training.memory_limit": memory_limit, "training.load_limit": load_limit},
    )
    if detach:
        _detach(plant_home, token)
        return
    from fedclient.commands.live import JoinView
    from fedclient.node.joining import JoinedPlant
    from fedclient.node.version_updater import line_version

    stop = stop_event(signal.SIGTERM, signal.SIGINT)
    with JoinView(_title(plant_home, decoded), plant_home.log_path) as view:
        plant = JoinedPlant(plant_home, say=view.say, wait=wait)
        view.facts, view.line = lambda: plant.status.facts, lambda: line_version(plant_home)
        _look_at_device(plant_home, view, first=decoded is not None)
        plant.run(stop, token=decoded, data=data, worker_python=worker_python)


def _say_what_was_understood(data: Path) -> None:
    """Name the layout of the pictures before a token is spent; folders that contradict each other end it here."""
    from fedspect.data.folder_layout import LayoutError
    from fedspect.data.sources import find_pictures

    try:
        note(f"pictures: {find_pictures(data).understood}")
    except LayoutError:
        raise
    except DataError:
        pass  # the trainer looks again, with the federation's classes and their other names


def _keep_settings(home: PlantHome, given: Mapping[str, object]) -> None:
    """Make sure that ``plant.toml`` can be read, and write the options into it."""
    from fedclient.plant_settings import SettingsFile

    file = SettingsFile(home.folder)
    file.prepare()
    file.change({key: value for key, value in given.items() if value is not None})


def _look_at_device(home: PlantHome, view: JoinView, *, first: bool) -> None:
    """Print warnings about the device; a first join does not go on with a failure."""
    from fedclient.node.doctor import before_joining

    for check in before_joining(home):
        if check.level == "ok":
            continue
        mend = f" -> {check.remedy}" if check.remedy else ""
        view.say(f"{check.level}: {check.name}: {check.found}{mend}")
        if check.level == "failure" and first:
            raise typer.Exit(check.exit_code)


def _title(home: PlantHome, token: JoinToken | None) -> str:
    if token is not None:
        return token.plant
    membership = home.membership()
    return f"{membership.plant} of {membership.federation}"


def _detach(home: PlantHome, token: str | None) -> None:
    """Start again in the background with the same arguments, and wait until the plant is joined.

    The token goes through a pipe: every user of the device may read command lines.
    """
    arguments = ["-" if each == token else each for each in sys.argv[1:] if each != "--detach"]

    def up(pid: int) -> bool:
        status = home.status() or {}
        return status.get("pid") == pid and status.get("state") in UP

    pid = detach(
        "fedclient.cli", arguments, home.folder / "node.log", up=up, within=STARTS_WITHIN, told=token or ""
    )
    state = (home.status() or {}).get("state")
    note(f"{state}, as process {pid}; `fedclient status` looks, `fedclient stop` ends it")
