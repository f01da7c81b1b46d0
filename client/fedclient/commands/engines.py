"""`fedclient engines`: which engines the line has, building them, and going from one to another.

Only `build` needs the worker's interpreter. The others read and move a pointer, so they answer at once, also
while the plant trains and also when it does not run at all.
"""

from __future__ import annotations

import getpass
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from fedclient.commands.options import HomeOption
from fedclient.node.home import PlantHome
from fedspect.console import JsonOption, note, print_json, progress_bar, warn
from fedspect.errors import EngineError, FedspectError, GateError

if TYPE_CHECKING:
    from fedclient.worker.deployments import Deployment, Deployments

app = typer.Typer(
    name="engines", help="The engines of this device: list, build, activate, go back.", no_args_is_help=True
)

WhyOption = Annotated[str, typer.Option("--why", help="Kept in the history.")]


def add_to(parent: typer.Typer) -> None:
    """Make `engines` a command of ``parent``."""
    parent.add_typer(app)


@app.command("list")
def list_engines(
    home: HomeOption = None,
    history: Annotated[bool, typer.Option("--history", help="Everything that was decided.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what the line runs, what it could run, and the engines in the store."""
    from fedclient.commands import engine_tables as tables
    from fedclient.commands.line import nothing_passes
    from fedclient.worker.engines.store import EngineStore

    deployments, folder = _opened(home)
    store = EngineStore(folder)
    current, previous = _current(deployments)
    made, entries = deployments.list(), deployments.history()
    passing = nothing_passes(PlantHome(home)) if current is not None else None
    problems = list(filter(None, (_settings_problem(folder.parent), passing)))
    if json:
        print_json(
            {
                "current": current and current.id,
                "previous": previous and previous.id,
                "deployments": [
                    {
                        **each.model_dump(mode="json"),
                        "engines_present": _fault(folder, each, thorough=False) is None,
                    }
                    for each in made
                ],
                "engines": [tables.engine_facts(each, deployments) for each in store.list()],
                "history": [entry.model_dump(mode="json") for entry in entries],
                "problems": problems,
            }
        )
        return
    if history:
        tables.show_history(entries)
        return
    if not made:
        note("no version was built here yet; `fedclient engines build` builds the newest that was published")
    else:
        faults = [_fault(folder, each, thorough=False) for each in made]
        tables.show_deployments(made, faults, current)
    for problem in problems:
        warn(problem)
    tables.show_engines(store.list(), deployments)


@app.command()
def build(
    version: Annotated[
        Optional[str],
        typer.Argument(help="A version's number or hash, or a folder.", show_default="the newest"),
    ] = None,
    activate: Annotated[
        bool, typer.Option("--activate", help="Let the line run it if it passes the gate.")
    ] = False,
    kind: Annotated[
        Optional[str], typer.Option(help="onnxruntime or tensorrt.", show_default="that of engines.toml")
    ] = None,
    precision: Annotated[
        Optional[str], typer.Option(help="float32 or float16.", show_default="that of engines.toml")
    ] = None,
    why: WhyOption = "built by hand",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Build the engines of a published version and take them through the gate."""
    from fedclient.commands.asking import ask_worker
    from fedclient.worker.gate.settings import read_deploy_settings

    plant_home = PlantHome(home)
    folder = _version_folder(plant_home, version)
    # a mistake in the settings is said before a worker is started
    read_deploy_settings(plant_home.folder, {"engine.kind": kind, "engine.precision": precision})
    arguments = ["--folder", str(folder), "--who", _who(), "--why", why]
    for name, value in (("--kind", kind), ("--precision", precision)):
        arguments += [] if value is None else [name, value]
    if activate and _runs(plant_home, folder):
        note(
            "the line runs this version already; its engines are tried again, and built where they are damaged"
        )
    with progress_bar("engines", shown=not json) as bar:
        report = ask_worker(
            plant_home,
            "fedclient.worker.gate",
            [*arguments, *(["--activate"] if activate else [])],
            lambda stage, done, total: bar(done, total),
        )
    if json:
        print_json(report)
    outcome, reasons = report["outcome"], report["reasons"]
    if outcome == "activated":
        if not json:
            done = "the line runs it" if activate else "; ".join(reasons)
            note(f"version {report['number']} passed the gate in {report['seconds']:.1f} s; {done}")
        return
    error = (GateError if outcome == "refused" else EngineError)(
        f"version {report['number']} {'did not pass the gate' if outcome == 'refused' else 'was not built'}",
        seen="; ".join(reasons),
        remedy="the line runs what it ran before; `fedclient engines list --history` keeps the figures",
    )
    if json:
        raise typer.Exit(error.exit_code)
    raise error


@app.command()
def activate(
    deployment: Annotated[str, typer.Argument(help="A deployment's name, its beginning, or a number.")],
    force: Annotated[bool, typer.Option("--force", help="Even if it was refused or retired.")] = False,
    why: WhyOption = "activated by hand",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Let the line run a deployment that was built here."""
    deployments, folder = _opened(home)
    chosen = _chosen(deployments, deployment)
    fault = _fault(folder, chosen)
    if fault is not None:
        raise EngineError(
            "the engines of this deployment are gone or damaged",
            seen=f"{chosen.id}: {fault}",
            remedy=f"build them again: fedclient engines build {chosen.number} --activate",
        )
    now = deployments.activate(chosen.id, who=_who(), why=why, force=force)
    if chosen.state != "passed":
        warn(f"{now.id} was {chosen.state}: {'; '.join(chosen.reasons)}")
    _tell(now, json)


@app.command()
def rollback(
    why: WhyOption = "rolled back by hand",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Go back to what the line ran before; again, to what it ran before that."""
    deployments, folder = _opened(home)
    _tell(deployments.rollback(who=_who(), why=why, usable=lambda each: _fault(folder, each) is None), json)


# -- parts -------------------------------------------------------------------------------------------------


def _opened(home: Path | None) -> tuple[Deployments, Path]:
    """The deployments, and the folder of the engine store, without numpy: a rollback must start at once."""
    from fedclient.worker.deployments import Deployments

    folder = PlantHome(home).folder
    return Deployments(folder / "deployments"), folder / "engines"


def _current(deployments: Deployments) -> tuple[Deployment | None, Deployment | None]:
    """The current deployment and the one before; a damaged pointer is named and counts as none."""
    try:
        return deployments.current(), deployments.previous()
    except FedspectError as error:
        warn(str(error))
        return None, None


def _fault(folder: Path, deployment: Deployment, *, thorough: bool = True) -> str | None:
    """Why the line could not run it: an engine is gone or damaged. None is opened."""
    from fedclient.engine_files import fault_of

    return fault_of(folder, deployment.engines.values(), thorough=thorough)


def _settings_problem(home: Path) -> str | None:
    """Why no engine could be built by ``engines.toml``; None where it is in order, or not there yet."""
    from fedclient.worker.gate.settings import SETTINGS_FILE, read_deploy_settings

    try:
        if (home / SETTINGS_FILE).exists():
            read_deploy_settings(home)
    except FedspectError as error:
        return str(error)
    return None


def _chosen(deployments: Deployments, name: str) -> Deployment:
    made = deployments.list()
    by_number = [each for each in made if name.isdigit() and each.number == int(name)]
    matching = by_number[-1:] or [each for each in made if name and each.id.startswith(name)]
    if len(matching) != 1:
        raise GateError(
            "there is no such deployment" if not matching else "several deployments begin like that",
            seen=name,
            accepted=", ".join(each.id for each in (matching or made)) or None,
            remedy="`fedclient engines list` shows them; `fedclient engines build` makes one",
        )
    return matching[0]


def _version_folder(home: PlantHome, version: str | None) -> Path:
    from fedspect.files import read_json

    if version is not None and (Path(version) / "card.json").is_file():
        return Path(version).absolute()
    found: list[tuple[int, Path]] = []
    for card in (home.folder / "versions").glob("*/card.json"):
        try:
            found.append((int(read_json(card)["number"]), card.parent))
        except (FedspectError, OSError, KeyError, TypeError, ValueError):
            continue
    found.sort()
    if version is not None:
        found = [
            each
            for each in found
            if version == str(each[0]) or (version and each[1].name.startswith(version))
        ]
    if not found:
        raise EngineError(
            "there is no such version on this device"
            if version
            else "no version was published to this device",
            seen=version,
            remedy="a running plant fetches what headquarters publishes; `fedclient status` shows it",
        )
    return found[-1][1]


def _runs(home: PlantHome, folder: Path) -> bool:
    """Whether the line runs the version in this folder."""
    from fedclient.node.version_updater import line_version
    from fedspect.files import read_json

    moved = line_version(home)
    return moved is not None and moved["version"] == read_json(folder / "card.json").get("content_hash")


def _tell(deployment: Deployment, json: bool) -> None:
    if json:
        print_json(deployment.model_dump(mode="json"))
    else:
        note(f"the line runs {deployment.id} (version {deployment.number}) from now on")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
