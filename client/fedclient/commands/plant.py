"""The commands about the plant itself: what it is doing, what ails it, ending it, leaving for good."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape

from fedclient.commands.data import data as look_at_data
from fedclient.commands.join import join
from fedclient.commands.options import HomeOption, WorkerPythonOption
from fedclient.node.home import PlantHome
from fedspect.console import JsonOption, note, print_json, stdout
from fedspect.errors import FederationError

STOPS_WITHIN = 60.0  # seconds


def add_to(app: typer.Typer) -> None:
    """Make these commands of ``app``, in the order in which help shows them."""
    for command in (join, status, doctor, look_at_data, stop, leave):
        app.command()(command)


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


def doctor(
    home: HomeOption = None,
    data: Annotated[Optional[Path], typer.Option("--data", help="Pictures to look at.")] = None,
    worker_python: WorkerPythonOption = None,
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


def stop(home: HomeOption = None) -> None:
    """End the running plant; `fedclient join` brings it back."""
    if _end(PlantHome(home)):
        note("stopped")
    else:
        note("the plant is not running")


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
