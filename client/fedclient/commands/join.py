"""`fedclient join`: in the foreground until told to stop, or in the background with ``--detach``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from fedclient.commands.options import HomeOption, WorkerPythonOption, interpreter
from fedclient.node.home import PlantHome
from fedspect.console import note
from fedspect.errors import FederationError, NoPicturesError, SettingsError
from fedspect.files import append_line
from fedspect.protocol.token import decode

STARTS_WITHIN = 300.0  # seconds; looking at many pictures takes some


def join(
    token: Annotated[
        Optional[str], typer.Argument(help="The line from headquarters; not needed again.")
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
) -> None:
    """Join a federation with a token, or come back without one, and take part in its rounds."""
    plant_home = PlantHome(home)
    plant_home.occupied().check()
    decoded = None if token is None else decode(token)
    if decoded is None:
        plant_home.membership()
    elif data is None and not plant_home.membership_path.exists():
        raise SettingsError(
            "joining needs to know where the pictures are", remedy="add --data FOLDER to the command"
        )
    if data is not None and not data.exists():
        raise NoPicturesError("there is no such folder of pictures", seen=data)
    if worker_python is not None:
        worker_python = interpreter(worker_python)
    if detach:
        _detach(plant_home)
        return
    from fedclient.node.joining import Plant

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def say(text: str) -> None:
        append_line(plant_home.log_path, json.dumps({"time": time.time(), "text": text}))
        note(text)

    Plant(plant_home, say=say, wait=wait).run(stop, token=decoded, data=data, worker_python=worker_python)


def _detach(home: PlantHome) -> None:
    """Start again in the background with the same arguments, and stay until the plant is joined."""
    arguments = [each for each in sys.argv[1:] if each != "--detach"]
    home.prepare()
    home.status_path.unlink(missing_ok=True)
    log = home.folder / "node.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedclient.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        state = (home.status() or {}).get("state")
        if state in ("joined", "working", "idle", "waiting", "lost"):
            note(f"{state}, as process {process.pid}; `fedclient status` looks, `fedclient stop` ends it")
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise FederationError(
                "the plant did not come up",
                seen=log.read_text("utf-8", "replace").strip()[-600:],
                remedy=f"see {log}",
            )
        time.sleep(0.2)
