"""One run from beginning to end: prepare, go through the rounds, measure what came out, write the report.

Whatever is finished is on disk. A run that was interrupted, or killed at any moment, goes on with
``resume_run`` and comes to the same model as if nothing had happened.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

from fedserver.rounds.events import Event
from fedserver.storage.run_store import RunStore
from fedsim.central_evaluation import CentralTest, save_model, write_evaluation
from fedsim.config import SimulationSettings
from fedsim.federation import federate, head_after
from fedsim.metrics_recorder import Recorder
from fedsim.preflight import check_apart, check_start
from fedsim.prepare import check_unchanged, prepare, unwatched
from fedsim.report import load_run, write_figures, write_report
from fedsim.run_facts import FactsFile, finished_facts
from fedsim.run_folder import Prepared, RunFolder
from fedspect.errors import (
    DataError,
    FedspectError,
    InterruptedRunError,
    ModelError,
    SettingsError,
    WorkspaceError,
)
from fedspect.training.metrics import Evaluation


class View(Protocol):
    """Who watches a run: is told of stages and of events (``fedserver.operations.live_view.LiveView``)."""

    def __call__(self, event: Event) -> None:
        """Something happened."""

    def stage(self, name: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """A stage of the work begins."""


class NoView:
    """Nobody watches."""

    def __call__(self, event: Event) -> None:
        """Nothing is shown."""

    def stage(self, name: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Nothing is shown."""
        return unwatched(name)


@dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    folder: RunFolder
    prepared: Prepared
    evaluation: Evaluation
    """Of the final model on the fixed test set."""
    rounds: int
    seconds: float
    """Over all sittings."""
    report: Path


def start_run(
    path: Path,
    settings: SimulationSettings,
    *,
    view: View | None = None,
    command: str = "",
    overwrite: bool = False,
) -> RunResult:
    """Start a run in an empty folder and bring it to its end; ``overwrite`` an earlier one if this can begin.

    Raises:
        WorkspaceError: the folder is not empty, or is not to be overwritten.
        AlreadyRunningError: another process works in it.
        InterruptedRunError: Ctrl-C; what was finished is on disk.
        FedspectError: whatever else makes it impossible to go on.

    """
    folder = RunFolder(path)
    if overwrite:
        check_start(settings)
        check_apart(settings, path)
        folder.clear()
    folder.check_empty()
    return _interruptible_run(folder, settings, view or NoView(), command)


def resume_run(path: Path, *, view: View | None = None, data: Path | None = None) -> RunResult:
    """Go on with the run in a folder, with the settings that it was started with; errors as ``start_run``.

    ``data`` is where its pictures lie now, if they were moved.
    """
    folder = RunFolder(path)
    if data is not None:
        folder.pictures_moved_to(data)
    return _interruptible_run(folder, folder.settings(), view or NoView(), "")


def _interruptible_run(
    folder: RunFolder, settings: SimulationSettings, view: View, command: str
) -> RunResult:
    with interruptible(folder.path, f"fedsim run --resume --output {folder.path}"):
        prepare_run(folder, settings, view=view, command=command)
        return finish_run(folder, view=view)


def prepare_run(
    folder: RunFolder, settings: SimulationSettings, *, view: View, command: str = ""
) -> Prepared:
    """Begin a run, or go on with its preparation; a run that was prepared is left as it is.

    One that cannot begin, for what was asked or for the pictures, leaves no folder behind.

    Raises:
        WorkspaceError: the folder holds something else, or a run with other settings.
        SettingsError, DataError, ModelError: the run cannot begin.

    """
    new = not folder.config.exists()
    if new:
        folder.check_empty()
        check_start(settings)
    elif folder.settings() != settings:
        raise WorkspaceError(
            "the folder holds a run with other settings",
            seen=folder.path,
            remedy="choose another --output, or go on with --resume and no other option",
        )
    try:
        with folder.held():
            return _prepared(folder, settings, view, command)
    except (SettingsError, DataError, ModelError):
        if new:
            folder.discard()
        raise


def _prepared(folder: RunFolder, settings: SimulationSettings, view: View, command: str) -> Prepared:
    done = folder.read_prepared()
    if done is not None and finished_facts(folder) is not None:
        return done
    if not folder.config.exists():
        folder.start(settings)
    facts = FactsFile.open(folder, settings, command)
    with _state_kept(facts):
        prepared = prepare(folder, settings, view.stage)
        facts.prepared(settings, prepared)
    return prepared


def finish_run(folder: RunFolder, *, view: View) -> RunResult:
    """Go through the rounds of a prepared run that are still to come, and measure what came out.

    A run that is over is left as it is.
    """
    settings = folder.settings()
    with folder.held():
        over = _finished(folder)
        if over is not None:
            return over
        facts = FactsFile.open(folder, settings)
        with _state_kept(facts):
            prepared = prepare(folder, settings, view.stage)
            with view.stage("comparing pictures with those of the start"):
                check_unchanged(folder, prepared)
            test = CentralTest(folder, prepared, settings)
            recorder = Recorder(folder, prepared, settings, test, view)
            recorder.mend()
            finished = federate(folder, prepared, settings, recorder)
            with view.stage("testing the model"):
                chosen = RunStore(folder.rounds).result_round()
                test.load(head_after(folder, prepared, settings, chosen))
                predictions = test.predict()
                evaluation = test.evaluate(predictions)
                write_evaluation(folder, evaluation, predictions, test)
                made = {"made_by": "fedsim run", "run": facts.facts.run_id, "rounds": chosen}
                save_model(folder, test, evaluation, made)
            facts.finish("finished")
        with view.stage("writing the report"):
            write_figures(folder.path)
            report = write_report(folder.path)
    return RunResult(folder, prepared, evaluation, finished.rounds, facts.facts.seconds, report)


def _finished(folder: RunFolder) -> RunResult | None:
    """What a run came to that is over, from its files; None of one that is not."""
    prepared, facts = folder.read_prepared(), finished_facts(folder)
    if prepared is None or facts is None:
        return None
    summary = load_run(folder.path)
    if summary.final is None:
        return None
    rounds = RunStore(folder.rounds).rounds()[-1]
    return RunResult(folder, prepared, summary.final, rounds, facts.seconds, folder.report)


@contextmanager
def interruptible(path: Path, again: str) -> Iterator[None]:
    """While the block runs, Ctrl-C and SIGTERM end it with an error that says how to go on.

    Raises:
        InterruptedRunError: it was interrupted.

    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if in_main else None
    try:
        yield
    except (KeyboardInterrupt, InterruptedRunError) as error:
        raise InterruptedRunError(
            "interrupted; what was finished is on disk", seen=path, remedy=f"go on with: {again}"
        ) from error
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _state_kept(facts: FactsFile) -> Iterator[None]:
    """Whatever happens inside, ``run.json`` says where the run stands afterwards."""
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, (KeyboardInterrupt, InterruptedRunError))
        with suppress(FedspectError):  # a full disk must not hide why the run failed
            facts.finish("interrupted" if interrupted else "failed")
        raise
