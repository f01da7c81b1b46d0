"""The `fedclient` command: what a plant's engineer types. It holds no torch; the worker does."""

from __future__ import annotations

import json as json_module
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape

from fedclient.node.home import HOME_VARIABLE, PlantHome
from fedspect.console import JsonOption, make_app, note, print_json, run_app, stdout
from fedspect.errors import FederationError, NoPicturesError, SettingsError
from fedspect.files import append_line
from fedspect.protocol.token import decode

app = make_app("fedclient", "A plant in a federation: join once, stay, see what it is doing, leave.")

STARTS_WITHIN = 300.0  # seconds; looking at many pictures takes some
STOPS_WITHIN = 60.0

HomeOption = Annotated[
    Optional[Path],
    typer.Option("--home", help="The plant's own folder (key, state).", envvar=HOME_VARIABLE),
]


@app.command()
def join(
    token: Annotated[
        Optional[str], typer.Argument(help="The line from headquarters; not needed again.")
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option("--data", help="Folder of pictures, or a CSV or Parquet list.")
    ] = None,
    home: HomeOption = None,
    worker_python: Annotated[
        Optional[str], typer.Option("--worker-python", help="The interpreter that has torch, if another.")
    ] = None,
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
        worker_python = _interpreter(worker_python)
    if detach:
        _detach(plant_home)
        return
    from fedclient.node.joining import Plant

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def say(text: str) -> None:
        append_line(plant_home.log_path, json_module.dumps({"time": time.time(), "text": text}))
        note(text)

    Plant(plant_home, say=say, wait=wait).run(stop, token=decoded, data=data, worker_python=worker_python)


def _interpreter(name: str) -> str:
    import shutil

    found = shutil.which(name)
    if found is None:
        raise SettingsError(
            "there is no such interpreter", seen=name, accepted="the path of a Python that has torch"
        )
    return str(Path(found).absolute())


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


@app.command()
def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Say which federation this plant is in and what it is doing."""
    plant_home = PlantHome(home)
    membership = plant_home.membership()
    said, holder = plant_home.status() or {}, plant_home.occupied().holder()
    report = _report(plant_home)
    if json:
        content = {
            "plant": membership.plant,
            "federation": membership.federation,
            "running": holder is not None,
            "status": said,
            "counts": report.get("counts", {}),
        }
        print_json(content)
        return
    console = stdout()
    lines = [f"{membership.plant} of {membership.federation}, pictures in {membership.data}"]
    if holder is None:
        lines.append("not running: `fedclient join` brings it back")
    else:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(said.get("since", 0))))
        lines.append(f"{said.get('state')} {said.get('detail', '')} (since {since}, process {holder['pid']})")
    if report.get("counts"):
        lines.append(", ".join(f"{number} {name}" for name, number in report["counts"].items()))
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _report(home: PlantHome) -> dict[str, Any]:
    from fedspect.files import read_json

    try:
        content = read_json(home.folder / "report.json")
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


@app.command()
def doctor(
    home: HomeOption = None,
    data: Annotated[Optional[Path], typer.Option("--data", help="Pictures to look at.")] = None,
    worker_python: Annotated[
        Optional[str], typer.Option("--worker-python", help="The interpreter that has torch, if another.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Look for what may keep this device from taking part; the exit code is the first failure's."""
    from fedclient.node.doctor import examine, worst

    checks = []
    console = stdout()
    for check in examine(PlantHome(home), data=data, worker_python=worker_python):
        checks.append(check)
        if not json:
            sign = {"ok": "[green]ok[/]     ", "warning": "[yellow]warning[/]", "failure": "[red]failure[/]"}
            mend = f"  -> {escape(check.remedy)}" if check.remedy else ""
            line = f"{sign[check.level]}  {escape(check.name)}: {escape(check.found)}{mend}"
            console.print(line, highlight=False, soft_wrap=True)
    if json:
        print_json([check.as_dict() for check in checks])
    raise typer.Exit(worst(checks))


@app.command()
def stop(home: HomeOption = None) -> None:
    """End the running plant; `fedclient join` brings it back."""
    if _end(PlantHome(home)):
        note("stopped")
    else:
        note("the plant is not running")


@app.command()
def leave(
    home: HomeOption = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Leave here even if headquarters cannot be told.")
    ] = False,
) -> None:
    """Leave the federation for good: headquarters forgets the key, and so does this device."""
    plant_home = PlantHome(home)
    _end(plant_home)
    if not forget:
        from fedclient.node.enrol import returned

        with returned(plant_home, plant_home.membership()) as session:
            session.leave()
    plant_home.forget()
    note("left; pictures and what was learned here are untouched")


def _end(home: PlantHome) -> bool:
    """End the running node; whether there was one."""
    holder = home.occupied().holder()
    if holder is None:
        return False
    os.kill(holder["pid"], signal.SIGTERM)
    deadline = time.monotonic() + STOPS_WITHIN
    while home.occupied().holder() is not None:
        if time.monotonic() > deadline:
            raise FederationError(
                "the plant does not end", seen=f"process {holder['pid']}", remedy=f"kill -9 {holder['pid']}"
            )
        time.sleep(0.1)
    return True


def main() -> None:
    """Run the command."""
    run_app(app)


if __name__ == "__main__":
    main()
