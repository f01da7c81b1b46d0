"""The `fedserver` command: what an operator at headquarters types."""

from __future__ import annotations

import json as json_module
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any, List, Optional

import typer

from fedserver.registry import Plant
from fedserver.runs import prepare_run, read_status, run_folders, standings
from fedserver.tokens import duration, invite, revoke
from fedserver.workspace import Workspace, create
from fedspect.console import JsonOption, make_app, note, print_json, print_table, run_app, stdout, warn
from fedspect.errors import FederationError, WorkspaceError
from fedspect.files import append_line
from fedspect.protocol.token import JoinToken

app = make_app("fedserver", "Headquarters of a federation: invite plants, run rounds, publish models.")
plants_app = typer.Typer(
    help="Who is invited, joined, online; shut a plant out.", invoke_without_command=True
)
app.add_typer(plants_app, name="plants")

STARTS_WITHIN = 120.0  # seconds
STOPS_WITHIN = 60.0

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", "-w", help="The workspace's folder.", envvar="FEDSERVER_WORKSPACE"),
]
HERE = Path()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    host: Annotated[
        List[str],
        typer.Option("--host", help="A name or address by which plants reach this machine; repeat."),
    ],
    name: Annotated[
        Optional[str], typer.Option(help="The federation's name; the folder's if not set.")
    ] = None,
    classes: Annotated[str, typer.Option(help="The classes of surface, separated by commas.")] = "",
    json: JsonOption = False,
) -> None:
    """Make a workspace: certificate authority, certificate, settings, registry. Twice changes nothing."""
    wanted = [each.strip() for each in classes.split(",") if each.strip()]
    report = create(folder, host, name=name, classes=wanted)
    if json:
        print_json({"folder": str(folder.resolve()), "made": report.made, "kept": report.kept})
    else:
        if report.made:
            note(f"{folder}: made {', '.join(report.made)}")
        if report.kept:
            note(f"{folder}: nothing changed in {', '.join(report.kept)}: it was there")
        settings = Workspace.open(folder).settings()
        if not settings.federation.classes:
            note(f"next: set classes in {folder / 'fedserver.toml'}")
        note(f"next: fedserver invite PLANT -w {folder}    and    fedserver start -w {folder}")
    for each in report.notes:
        warn(each)


@app.command("invite")
def invite_command(
    plant: Annotated[str, typer.Argument(help="The plant's name from now on.")],
    expires: Annotated[str, typer.Option(help="How long the token is good: 30m, 24h, 7d.")] = "24h",
    replace: Annotated[
        bool, typer.Option("--replace", help="The plant's device was exchanged: its old key goes.")
    ] = False,
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Print a join token: one line for `fedclient join`, good once. Hand it over as you would a password."""
    opened = Workspace.open(workspace)
    network = opened.settings().network
    token = invite(
        opened.registry,
        plant,
        lifetime=duration(expires),
        addresses=[(host, network.enrolment_port) for host in network.hosts],
        fingerprint=opened.authority.fingerprint(),
        replace=replace,
    )
    if json:
        print_json(
            {"plant": plant, "token": str(token), "expires": token.expires, "id": token.token_id.hex()}
        )
        return
    sys.stdout.write(f"{token}\n")
    note(_invitation_note(token))


def _invitation_note(token: JoinToken) -> str:
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(token.expires))
    return f"on the device, before {until}: fedclient join TOKEN --data FOLDER_WITH_PICTURES"


@plants_app.callback()
def plants(context: typer.Context, workspace: WorkspaceOption = HERE, json: JsonOption = False) -> None:
    """List the plants: state, online, pictures, last round, last refusal."""
    if context.invoked_subcommand is not None:
        return
    opened = Workspace.open(workspace)
    rows = plant_rows(opened)
    if json:
        print_json(rows)
        return
    columns = ["plant", "state", "online", "pictures", "last round", "last refusal"]
    print_table(
        f"Plants of {opened.settings().federation.name}",
        columns,
        [[row[column] if row[column] is not None else "" for column in columns] for row in rows],
        caption="" if rows else "nobody was invited yet: fedserver invite PLANT",
    )


def plant_rows(workspace: Workspace) -> list[dict[str, Any]]:
    """What is known of each plant, from the registry, the running server and the newest run."""
    online = (workspace.running() or {}).get("online", [])
    known = standings(workspace.runs)
    rows = []
    for plant in sorted(workspace.registry.read().plants.values(), key=lambda each: each.name):
        standing = known.get(plant.name, {})
        rows.append(
            {
                "plant": plant.name,
                "state": "set aside" if standing.get("set_aside") else plant.state,
                "online": "yes" if plant.name in online else "no",
                "pictures": _pictures(plant),
                "last round": standing.get("last_round"),
                "last refusal": standing.get("last_refusal"),
                "software": plant.software,
                "seen": plant.seen,
                "counts": plant.report.get("counts", {}),
            }
        )
    return rows


def _pictures(plant: Plant) -> int | None:
    counts = plant.report.get("counts")
    return sum(counts.values()) if isinstance(counts, dict) else None


@plants_app.command("revoke")
def revoke_command(
    plant: Annotated[str, typer.Argument(help="The plant's name.")],
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Shut a plant out: its key and its tokens are worth nothing from now on."""
    opened = Workspace.open(workspace)
    entry = revoke(opened.registry, plant)
    if json:
        print_json({"plant": entry.name, "state": entry.state})
    else:
        note(f"{plant} is revoked; a running server ends its connection within a second")


@app.command()
def start(
    rounds: Annotated[
        Optional[int], typer.Option(min=1, max=100_000, help="Rounds of the whole run; wins over the file.")
    ] = None,
    new_run: Annotated[
        bool, typer.Option("--new-run", help="Begin a new run from the base model instead of going on.")
    ] = False,
    no_rounds: Annotated[
        bool, typer.Option("--no-rounds", help="Only let plants join; run no rounds.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background.")] = False,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Bring up the SuperLink and the enrolment service, and run rounds; goes on where a killed server was."""
    opened = Workspace.open(workspace)
    opened.occupied().check()
    if detach:
        _detach(opened)
        return
    from fedserver.base_files import BaseFiles
    from fedserver.headquarters import Headquarters

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log = opened.logs / "server.jsonl"

    def say(text: str) -> None:
        append_line(log, json_module.dumps({"time": time.time(), "text": text}))
        note(text)

    with opened.occupied():
        settings = opened.settings()
        settings.ready_classes()
        base = BaseFiles.read(settings.base_folder(opened.folder))
        store = None if no_rounds else prepare_run(opened.runs, settings, base, rounds=rounds, new=new_run)
        finished = Headquarters(opened, settings, base, store, say=say).serve(stop)
    if not finished and store is not None:
        note("stopped; `fedserver start` goes on with the next round")


def _detach(workspace: Workspace) -> None:
    """Start again in the background with the same arguments, and stay until it is up."""
    arguments = [each for each in sys.argv[1:] if each != "--detach"]
    log = workspace.logs / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedserver.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + STARTS_WITHIN
    while not (workspace.running() or {}).get("pid"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise FederationError(
                "the server did not come up",
                seen=log.read_text("utf-8", "replace").strip()[-600:],
                remedy=f"see {log}",
            )
        time.sleep(0.2)
    note(f"running as process {process.pid}; `fedserver status` looks, `fedserver stop` ends it")


@app.command()
def status(workspace: WorkspaceOption = HERE, json: JsonOption = False) -> None:
    """Say whether a server runs on the workspace, what the rounds are doing, and who is online."""
    opened = Workspace.open(workspace)
    running = opened.running()
    folders = run_folders(opened.runs)
    run = read_status(folders[-1]) if folders else {}
    if json:
        print_json({"running": running, "run": folders[-1].name if folders else None, "status": run})
        return
    console = stdout()
    if running is None:
        console.print("no server is running on this workspace", highlight=False)
    else:
        online = ", ".join(running.get("online", [])) or "nobody"
        console.print(f"running as process {running.get('pid')}; online: {online}", highlight=False)
    if run:
        console.print(
            f"{folders[-1].name}: {run.get('state')}: {run.get('text')}", highlight=False, markup=False
        )


@app.command()
def stop(workspace: WorkspaceOption = HERE) -> None:
    """End the running server; what was finished is on disk."""
    opened = Workspace.open(workspace)
    holder = opened.occupied().holder()
    if holder is None:
        note("no server is running on this workspace")
        return
    if holder.get("host") not in (None, os.uname().nodename):
        raise WorkspaceError(
            "the server runs on another machine", seen=holder.get("host"), remedy="run `fedserver stop` there"
        )
    os.kill(holder["pid"], signal.SIGTERM)
    deadline = time.monotonic() + STOPS_WITHIN
    while opened.occupied().holder() is not None:
        if time.monotonic() > deadline:
            raise FederationError(
                "the server does not end", seen=f"process {holder['pid']}", remedy=f"kill -9 {holder['pid']}"
            )
        time.sleep(0.1)
    note("stopped")


def main() -> None:
    """Run the command."""
    run_app(app)


if __name__ == "__main__":
    main()
