"""Following the plant's files: which deployment is current, and the line's settings.

Looks a few times a second at two stamps (one ``stat`` each). A new deployment is opened beside the old one and
answers one picture for practice before it takes over; what cannot be opened is named, tried again after a
while, and the old one goes on answering. A settings file with a mistake is named and changes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from fedclient.worker.deployments import Deployment, Deployments
from fedclient.worker.line.leasing import Answering
from fedclient.worker.line.queueing import Line
from fedclient.worker.line.settings import SETTINGS_FILE, LineSettings, read_settings
from fedclient.worker.line.verdicts import Judge
from fedspect.errors import FedspectError

LOOK_EVERY = 0.25  # seconds
TRY_AGAIN = 30.0

logger = logging.getLogger("fedclient.line")


class Follower:
    """Keeps a line on the current deployment and the current settings."""

    def __init__(
        self,
        line: Line,
        deployments: Deployments,
        open_deployment: Callable[[Deployment], Answering],
        folder: Path,
        on_swap: Callable[[Answering, Deployment, LineSettings], None],
    ) -> None:
        """``folder`` holds ``line.toml``."""
        self.line = line
        self.problem: Optional[str] = None
        self.swaps = 0
        self.deployment: Optional[Deployment] = None
        self.settings = read_settings(folder)
        self._deployments = deployments
        self._open = open_deployment
        self._folder = folder
        self._on_swap = on_swap
        self._seen: Optional[str] = None
        self._settings_seen = self._settings_stamp()
        self._again_at = 0.0
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def look(self) -> bool:
        """Look once; whether the model was replaced."""
        self._look_at_settings()
        stamp = self._deployments.stamp()
        if stamp == self._seen and (self.problem is None or time.monotonic() < self._again_at):
            return False
        self._seen = stamp
        if not stamp:
            return False
        try:
            return self._take_up()
        except FedspectError as error:
            problem = str(error)
        except Exception as error:
            logger.error("a defect while opening an engine", exc_info=error)
            problem = f"{type(error).__name__}: {error}"
        if problem != self.problem:
            logger.error("the current deployment cannot be used, the line stays as it is: %s", problem)
        self.problem, self._again_at = problem, time.monotonic() + TRY_AGAIN
        return False

    def start(self) -> None:
        """Look again and again in a thread."""
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    # -- parts ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            self.look()

    def _take_up(self) -> bool:
        deployment = self._deployments.current()
        if deployment is None:
            return False
        begun = time.perf_counter()
        judge = Judge(self.settings.verdicts, deployment.classes)
        model = self._open(deployment)
        try:
            practise(model)
        except Exception:
            model.close()
            raise
        self.line.replace(model, judge)
        self.deployment = deployment
        self.swaps += 1
        self.problem = None
        self._on_swap(model, deployment, self.settings)
        seconds = time.perf_counter() - begun
        logger.info("version %d (%s) answers now, after %.2f s", model.number, model.version[:12], seconds)
        return True

    def _settings_stamp(self) -> str:
        try:
            facts = (self._folder / SETTINGS_FILE).stat()
        except OSError:
            return ""
        return f"{facts.st_ino}-{facts.st_mtime_ns}-{facts.st_size}"

    def _look_at_settings(self) -> None:
        stamp = self._settings_stamp()
        if stamp == self._settings_seen:
            return
        self._settings_seen = stamp
        try:
            settings = read_settings(self._folder)
            model = self.line.current
            judge = None if model is None else Judge(settings.verdicts, model.classes)
        except FedspectError as error:
            logger.error("the settings stay as they are: %s", error)
            return
        self.settings = settings
        if model is not None and judge is not None and self.deployment is not None:
            self.line.rejudge(judge)
            self._on_swap(model, self.deployment, settings)
        self._again_at = 0.0
        logger.info("took up changed settings; those under [serving] count from the next start")


def practise(model: Answering) -> None:
    """Let a model answer one grey picture: the first answer of an engine is its slowest.

    Raises:
        EngineError: it cannot.

    """
    preprocessing = model.preprocessing
    shape = (1, preprocessing.channels, preprocessing.size, preprocessing.size)
    model.answer(np.full(shape, 128, dtype=np.uint8))
