"""`fedserver start`, `status` and `stop`: the running server."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from fedserver.commands.options import HERE, WorkspaceOption, open_workspace
from fedspect.background import detach
from fedspect.console import JsonOption, note, print_json, stderr, stdout
from fedspect.errors import WorkspaceError
from fedspect.graceful_shutdown import stop_event

if TYPE_CHECKING:
    from fedserver.workspace import Workspace

LOG = "server.jsonl"
ENDED = ("finished", "stopped")
STARTS_WITHIN = 300.0  # seconds; Flower's SuperLink alone may take 180
STOPS_WITHIN = 60.0


def add_to(app: typer.Typer) -> None:
    """Make them commands of ``app``."""
    for command in (start, status, stop):
        app.command()(command)


def start(
    rounds: Annotated[
        Optional[int], typer.Option(min=0, max=100_000, help="Rounds of the whole run; wins over the file.")
    ] = None,
    new_run: Annotated[
        bool, typer.Option("--new-run", help="Begin a new run from the base model instead of going on.")
    ] = False,
    no_rounds: Annotated[
        bool, typer.Option("--no-rounds", help="Only let plants join; run no rounds.")
    ] = False,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="End after the last round instead of staying.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background.")] = False,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Bring up the SuperLink and the enrolment service, and run rounds; goes on where a killed server was.

    After the last round what it made is published and the server stays: plants join, fetch the version and
    report what became of it.
    """
    opened = open_workspace(workspace)
    opened.occupied().check()
    if detach:
        _detach(opened)
        return
    from fedserver.operations.live_view import LiveView
    from fedserver.operations.operator_log import OperatorLog
    from fedserver.operations.supervisor import Supervisor
    from fedserver.storage.runs import prepare_run

    stop = stop_event(signal.SIGTERM, signal.SIGINT)
    finished, store = False, None
    with opened.taken(), contextlib.ExitStack() as shown:
        said = opened.close_to_others()
        if said is not None:
            note(said)
        settings = opened.settings()
        settings.ready_classes()
        base = opened.base()
        store = None if no_rounds else prepare_run(opened.runs, settings, base, rounds=rounds, new=new_run)
        view = None
        if store is not None and stderr().is_terminal:
            title = f"{settings.federation.name} {store.folder.name}"
            view = shown.enter_context(LiveView(rounds=store.facts.rounds.rounds, title=title))
            view.view.closed = store.rounds()[-1]
        operator_log = OperatorLog(opened.logs / LOG, note, view)
        server = Supervisor(opened, settings, base, store, operator_log=operator_log, until_done=until_done)
        finished = server.serve(stop)
    if not finished and store is not None:
        note("stopped; `fedserver start` goes on with the next round")


def _detach(workspace: Workspace) -> None:
    """Start again in the background with the same arguments, and wait until it is up."""
    pid = detach(
        "fedserver.cli",
        [each for each in sys.argv[1:] if each != "--detach"],
        workspace.logs / "server.log",
        up=lambda pid: (workspace.running() or {}).get("pid") == pid,
        within=STARTS_WITHIN,
    )
    note(f"running as process {pid}; `fedserver status` looks, `fedserver stop` ends it")


def status(workspace: WorkspaceOption = HERE, json: JsonOption = False) -> None:
    """Say whether a server runs on the workspace, what the rounds are doing, and who is online."""
    from fedserver.storage.runs import read_status, run_folders

    opened = open_workspace(workspace)
    running = opened.running()
    folders = run_folders(opened.runs)
    run = read_status(folders[-1]) if folders else {}
    version = opened.models.published()
    if json:
        published = None if version is None else version.card.model_dump(mode="json", exclude={"before"})
        print_json(
            {
                "running": running,
                "run": folders[-1].name if folders else None,
                "status": run,
                "published": published,
            }
        )
        return
    console = stdout()
    if running is None:
        console.print("no server is running on this workspace", highlight=False)
    elif not running:
        console.print("a server is just starting", highlight=False)
    else:
        online = ", ".join(running.get("online", [])) or "nobody"
        console.print(f"running as process {running.get('pid')}; online: {online}", highlight=False)
    if run:
        console.print(_run_line(folders[-1].name, run, running), highlight=False, markup=False)
    if version is not None:
        console.print(f"plants are to run version {version.name}", highlight=False, markup=False)


def _run_line(name: str, run: Mapping[str, Any], running: Mapping[str, Any] | None) -> str:
    """The run's last status; in the past tense where it was interrupted and no server continues it."""
    said = f"{run.get('state')}: {run.get('text')}"
    if run.get("state") in ENDED or (running or {}).get("run") == name:
        return f"{name}: {said}"
    return f"{name}: cut; the last that was heard, at {run.get('at')}: {said}"


def stop(workspace: WorkspaceOption = HERE) -> None:
    """End the running server; what was finished is on disk."""
    opened = open_workspace(workspace)
    lock = opened.occupied()
    host = (lock.holder() or {}).get("host", os.uname().nodename)
    if host != os.uname().nodename:
        raise WorkspaceError(
            "the server runs on another machine", seen=host, remedy="run `fedserver stop` there"
        )
    note("stopped" if lock.end(STOPS_WITHIN) else "no server is running on this workspace")
