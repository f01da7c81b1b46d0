"""`fedclient status`: the plant, its rounds, what training waits for, what the line runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import typer

from fedclient.commands.options import HomeOption
from fedclient.commands.wording import plain, round_text, version_texts
from fedclient.node.home import PlantHome
from fedspect.console import JsonOption, print_json


def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Say which federation this plant is in, what it is doing and what its line runs."""
    plant_home = PlantHome(home)
    found = facts(plant_home)
    if json:
        print_json(found)
        return
    for line in _lines(found):
        typer.echo(line)


def facts(home: PlantHome) -> dict[str, Any]:
    """All that is shown, as JSON values.

    Raises:
        WorkspaceError: the plant has never joined.

    """
    from fedclient.commands.line import nothing_passes
    from fedclient.node.version_updater import line_version
    from fedclient.yield_policy import YieldPolicy

    membership = home.membership()
    holder = home.occupied().holder()
    yield_policy = YieldPolicy(home.folder)
    blocker = yield_policy.schedule_blocker()
    said = home.status() or {}
    line = line_version(home)
    if holder is None:
        said = {**said, "work": None}
    return {
        "plant": membership.plant,
        "federation": membership.federation,
        "data": membership.data,
        "running": holder is not None,
        "process": None if holder is None else holder.get("pid"),
        "status": said,
        "training": None if blocker is None else blocker.as_dict(),
        "settings": {"path": str(yield_policy.file.path), "problem": yield_policy.file.problem},
        "line": line,
        "thresholds": {"problem": None if line is None else nothing_passes(home)},
        "serving": _serving(home),
        "drift": _drift(home),
        "counts": _report(home).get("counts", {}),
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    said = found["status"]
    yield f"{found['plant']} of {found['federation']}, pictures in {found['data']}"
    if found["running"]:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(said.get("since", 0))))
        state = " ".join(filter(None, (said.get("state", "starting"), said.get("detail", ""))))
        yield f"{state} (since {since}, process {found['process']})"
    elif said.get("state") == "refused":  # coming back as it is would end the same way
        yield f"not running: it was not admitted: {said.get('detail', '')}"
    else:
        ended = f"; the last that it said: {said['detail']}" if said.get("detail") else ""
        yield f"not running: `fedclient join` brings it back{ended}"
    if found["training"] is not None:
        end = "; `fedclient resume` ends that" if found["training"]["kind"] == "paused" else ""
        yield f"training waits: {found['training']['reason']}{end}"
    if said.get("work"):
        work = said["work"]
        yield (
            f"{work['stage']}: {work['done']:,} of {work['total']:,}"
            if work["total"]
            else f"{work['stage']} ..."
        )
    if said.get("round"):
        yield round_text(said["round"])
    yield from version_texts(found["line"], said.get("version"))
    if found["serving"] is not None and found["serving"]["problem"]:
        number = found["serving"]["number"]
        answers = "no version" if number is None else f"version {number}"
        yield plain(f"the line answers: {answers}; {found['serving']['problem']}")
    if found["drift"].get("state") == "drift":
        yield f"the line's pictures drift: {'; '.join(found['drift'].get('reasons', []))}"
    if found["counts"]:
        yield ", ".join(f"{number} {name}" for name, number in found["counts"].items())
    problems = dict(said.get("problems") or {})
    if found["settings"]["problem"]:
        problems["settings"] = found["settings"]["problem"]
    if found["thresholds"]["problem"]:
        problems["thresholds"] = found["thresholds"]["problem"]
    for subject, text in problems.items():
        yield f"to mend: {subject}: {text}"


def _report(home: PlantHome) -> dict[str, Any]:
    from fedspect.files import read_json

    try:
        content = read_json(home.report_path)
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


def _serving(home: PlantHome) -> dict[str, Any] | None:
    """The serving status of the line's process; ``None`` where none runs."""
    from fedspect.errors import DamagedFileError
    from fedspect.files import read_json
    from fedspect.locking import Occupied

    line = home.folder / "line"
    try:
        if Occupied(line / "serve.lock", "the line").holder() is None:
            return None  # a killed one left its file
        content = read_json(line / "serve.json")
    except (OSError, DamagedFileError):
        return None
    names = ("pid", "address", "version", "number", "problem", "at")
    return {name: content.get(name) for name in names} if isinstance(content, dict) else None


def _drift(home: PlantHome) -> dict[str, Any]:
    """The drift report of the line's process; empty where there is none."""
    from fedspect.errors import DamagedFileError
    from fedspect.files import read_json

    try:
        content = read_json(home.folder / "line" / "drift.json")
    except (FileNotFoundError, DamagedFileError):
        return {}
    return (
        {name: content.get(name) for name in ("state", "since", "reasons")}
        if isinstance(content, dict)
        else {}
    )
