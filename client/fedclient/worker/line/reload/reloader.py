"""Reloader: opens the current deployment and the settings again when their files change.

Looks a few times a second at two stamps (one ``stat`` each). A new deployment is opened beside the old one and
answers one picture to warm up before it takes over; what cannot be opened is named, tried again after a
while, and the old one goes on answering. Where none answers yet, the newest earlier deployment that opens does
meanwhile. A settings file with a mistake is named and changes nothing. A disk that gives no answer is named once
and asked on.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable, Optional, Sequence

import numpy as np

from fedclient.worker.deployments import Deployment, Deployments
from fedclient.worker.line.decision_policy import DecisionPolicy
from fedclient.worker.line.input_guard import BOUNDS_FILE, Guard
from fedclient.worker.line.reload.serving_status import ServingStatus, in_words
from fedclient.worker.line.serving.dynamic_batcher import DynamicBatcher
from fedclient.worker.line.serving.model_leases import ServedModel
from fedclient.worker.line.settings import SETTINGS_FILE, LineSettings, read_settings
from fedspect.errors import FedspectError

LOOK_EVERY = 0.25  # seconds
TRY_AGAIN = 30.0
BOUNDS = Path("reference", BOUNDS_FILE)
MOST_FAILURES = 10  # answers in a row that an engine may fail to give

logger = logging.getLogger("fedclient.line")


class Reloader:
    """Keeps the line on the current deployment and the current settings."""

    def __init__(
        self,
        line: DynamicBatcher,
        deployments: Deployments,
        open_deployment: Callable[[Deployment], ServedModel],
        folder: Path,
        *,
        guards: Callable[[ServedModel], Sequence[Guard]] = lambda model: (),
        on_model: Callable[[ServedModel, Deployment], None],
        on_settings: Callable[[LineSettings], None],
        on_broken: Callable[[], None],
        on_status: Callable[[ServingStatus], None] = lambda status: None,
    ) -> None:
        """``folder`` holds ``line.toml``, and the bounds that ``guards`` are of. Told of: another model, changed
        settings, an engine that fails for good, another ``status``.
        """
        self.line = line
        self.status = ServingStatus()
        self.settings = read_settings(folder)
        self._deployments = deployments
        self._open = open_deployment
        self._folder = folder
        self._guards = guards
        self._on_model = on_model
        self._on_settings = on_settings
        self._on_broken = on_broken
        self._on_status = on_status
        self._opened_again_after: Optional[int] = None  # pictures that the line had answered
        self._seen: Optional[str] = None
        self._settings_seen = self._settings_stamp()
        self._again_at = 0.0
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def look(self) -> bool:
        """Check once; whether the model was replaced."""
        self._look_at_settings()
        if self.line.failures >= MOST_FAILURES:
            self._open_again()
        stamp = self._deployments.stamp()
        if stamp == self._seen and (self.status.problem is None or time.monotonic() < self._again_at):
            return False
        self._seen = stamp
        if not stamp:
            return False
        before, model = self.status, self.line.current
        status = self._follow()
        if status.problem is not None:
            self._again_at = time.monotonic() + TRY_AGAIN
            if status.problem != before.problem:
                logger.error("%s", status)
        self._settle(status)
        return self.line.current is not model

    def start(self) -> None:
        """Check repeatedly in a thread."""
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    # -- the model -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            try:
                self.look()
            except Exception as error:  # else nobody would take up the next version
                self._cannot_look(error)

    def _cannot_look(self, error: Exception) -> None:
        """Report an obstacle once; the next check without one clears it."""
        problem = f"cannot see what is to run: {type(error).__name__}: {in_words(error)}"
        if problem != self.status.problem:
            ours = isinstance(error, (FedspectError, OSError))
            logger.error("%s", problem, exc_info=None if ours else error)
        self._again_at = 0.0
        self._settle(replace(self.status, problem=problem))

    def _follow(self) -> ServingStatus:
        """Load the current deployment, or an earlier one where nothing answers yet."""
        name = "the current deployment"
        try:
            wanted = self._deployments.current()
            if wanted is None:
                return self.status
            name = f"version {wanted.number}"
            return self._take_up(wanted)
        except Exception as error:
            problem = f"cannot use {name}: {_reason(error)}"
        status = self.status
        if status.running is None:
            status = self._fall_back()
        return replace(status, problem=problem)

    def _fall_back(self) -> ServingStatus:
        """The newest of the earlier deployments that opens."""
        try:
            earlier = list(self._deployments.earlier())
        except FedspectError as error:
            logger.error("nor can an earlier deployment be looked for: %s", _reason(error))
            return self.status
        for before in earlier:
            try:
                return self._take_up(before)
            except Exception as error:
                logger.error("nor can version %d be used: %s", before.number, _reason(error))
        return self.status

    def _take_up(self, deployment: Deployment) -> ServingStatus:
        running = self.status.running
        if running is None or running.id != deployment.id:
            self._replace_by(deployment)
        unknown = self.settings.verdicts.unknown(deployment.classes)
        return replace(self.status, running=deployment, problem=None, unknown=unknown)

    def _open_again(self) -> None:
        """Reopen an engine that fails; where that has not helped, only a new process can (a GPU's error sticks)."""
        running, answered = self.status.running, self.line.pictures
        if running is None:
            return
        logger.error("version %d failed %d times in a row", running.number, self.line.failures)
        helped = self._opened_again_after != answered
        self._opened_again_after = answered
        try:
            if helped:
                self._replace_by(running)
                return
            problem = "it failed again after it was opened anew"
        except Exception as error:
            problem = _reason(error)
        self._settle(replace(self.status, broken=f"version {running.number} cannot answer: {problem}"))
        self._on_broken()

    def _replace_by(self, deployment: Deployment) -> None:
        begun = time.perf_counter()
        verdicts = self.settings.verdicts
        model = self._open(deployment)
        try:
            policy = DecisionPolicy(
                verdicts.known(deployment.classes), deployment.classes, self._guards(model)
            )
            warm_up(model)
        except Exception:
            model.close()
            raise
        self.line.replace(model, policy)
        self._on_model(model, deployment)
        seconds = time.perf_counter() - begun
        logger.info("version %d (%s) answers now, after %.2f s", model.number, model.version[:12], seconds)
        _warn_of(verdicts.unknown(deployment.classes), policy)

    def _settle(self, status: ServingStatus) -> None:
        if status != self.status:
            self.status = replace(status, at=time.time())
            self._on_status(self.status)

    # -- the settings --------------------------------------------------------------------------------------

    def _settings_stamp(self) -> str:
        return " ".join(_stamp(self._folder / name) for name in (SETTINGS_FILE, BOUNDS))

    def _look_at_settings(self) -> None:
        stamp = self._settings_stamp()
        if stamp == self._settings_seen:
            return
        self._settings_seen = stamp
        running = self.status.running
        try:
            settings = read_settings(self._folder)
            model = self.line.current
            policy = None
            if running is not None and model is not None:
                policy = DecisionPolicy(settings.verdicts, running.classes, self._guards(model))
        except FedspectError as error:
            logger.error("the settings stay as they are: %s", error)
            self._settle(replace(self.status, mistake=in_words(error)))
            return
        self.settings = settings
        if policy is not None:
            self.line.replace_policy(policy)
            _warn_of((), policy)
        self._on_settings(settings)
        self._settle(replace(self.status, mistake=None, unknown=()))
        self._again_at = 0.0
        logger.info("took up changed settings; those under [serving] count from the next start")


def _stamp(path: Path) -> str:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return ""
    return f"{facts.st_ino}-{facts.st_mtime_ns}-{facts.st_size}"


def warm_up(model: ServedModel) -> None:
    """Warm-up: let a model answer one grey picture, for the first answer of an engine is its slowest.

    Raises:
        EngineError: it cannot.

    """
    preprocessing = model.preprocessing
    shape = (1, preprocessing.channels, preprocessing.size, preprocessing.size)
    model.answer(np.full(shape, 128, dtype=np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, FedspectError):
        return in_words(error)
    logger.error("a defect while opening an engine", exc_info=error)
    return f"{type(error).__name__}: {in_words(error)}"


def _warn_of(unknown: Sequence[str], policy: DecisionPolicy) -> None:
    if unknown:
        logger.warning("line.toml names what this version does not know: %s", ", ".join(unknown))
    if not policy.good.any():
        logger.warning("line.toml names no good class: no picture passes")
