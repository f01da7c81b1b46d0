"""Commands of the line. They run in the worker's interpreter, which replaces this process. They run in the worker's
interpreter, which takes this process' place.

Options are the worker's own (``fedclient.worker.line.cli``): what is given here is handed on as it is, ``--help``
too, after the plant's home.
"""

from __future__ import annotations

import os
import sys

import typer

from fedclient.commands.options import HomeOption
from fedclient.node.home import PlantHome
from fedspect.errors import FedspectError, WorkerError, WorkspaceError

COMMANDS = {
    "predict": "Say what becomes of the pieces on these pictures.",
    "watch": "Give each new picture of a folder a verdict.",
    "serve": "Answer the line: the Open Inference Protocol over gRPC, until told to end.",
    "bench": "Measure how fast the line answers.",
    "thresholds": "Show how sure the line must be of each class, or change it.",
    "review": "Pictures that wait for a person: the answers of which the line was not sure.",
    "drift": "Whether the line's pictures are still such as the model learned from.",
}
HANDED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def add_to(app: typer.Typer) -> None:
    """Make these commands of ``app``."""
    for name, text in COMMANDS.items():
        app.command(name, help=text, context_settings=HANDED_ON, add_help_option=False)(_hand_on)


def nothing_passes(home: PlantHome) -> str | None:
    """Why no piece can pass on this line, for a person to mend; None where nothing is wrong."""
    from fedclient.worker.line.settings import read_settings

    try:
        verdicts = read_settings(home.folder / "line").verdicts
    except FedspectError as error:
        return str(error)
    if verdicts.good_classes:
        return None
    return "no class is good, so nothing passes on this line: fedclient thresholds --good CLASS names one"


def _hand_on(context: typer.Context, home: HomeOption = None) -> None:
    plant_home = PlantHome(home)
    try:
        python = plant_home.membership().worker_python or sys.executable
    except WorkspaceError:  # a device may answer for a line without being in a federation
        python = sys.executable
    command = [python, "-m", "fedclient.worker.line", str(context.info_name), *context.args]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(python, command, {**os.environ, "FEDSPECT_HOME": str(plant_home.folder)})
    except OSError as error:
        raise WorkerError(
            "the worker's interpreter cannot be started",
            seen=f"{python}: {error.strerror}",
            remedy="name the interpreter that has the engines: fedclient join --worker-python PATH",
        ) from error
