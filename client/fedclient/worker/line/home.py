"""Paths of the line in a plant's home: deployments, engines, and its own folder ``line``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import List, Optional, Sequence

from fedclient.worker.deployments import Deployment, Deployments
from fedclient.worker.engines import EngineStore, LineModel, open_model
from fedclient.worker.line.input_guard import Guard, InputGuard
from fedclient.worker.line.monitoring.drift import DriftWatch
from fedclient.worker.line.out_of_distribution import DistanceGuard
from fedclient.worker.line.serving.model_leases import ServedModel
from fedclient.worker.line.settings import DriftSettings
from fedclient.worker.settings import LABELLED
from fedspect.account import expanded
from fedspect.errors import AlreadyRunningError, DamagedFileError, EngineError
from fedspect.locking import Occupied

logger = logging.getLogger("fedclient.line")


class LineHome:
    """Where things are; nothing is made before it is written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = expanded(folder).absolute()
        self.line = self.folder / "line"
        self.review = self.line / "review"
        self.labelled = self.folder / LABELLED
        self.drift_path = self.line / "drift.json"
        self.reference = self.line / "reference"
        self.deployments = Deployments(self.folder / "deployments")
        self.store = EngineStore(self.folder / "engines")
        self._locks: List[Occupied] = []

    def occupied(self) -> Occupied:
        """The lock of the serving process."""
        return Occupied(self.line / "serve.lock", f"the line of {self.folder}")

    def open(self, deployment: Deployment, *, threads: int = 1) -> LineModel:
        """Open a deployment's engines; raises ``EngineError`` or ``DamagedFileError``."""
        return open_model(deployment, self.store, threads=threads)

    def open_current(self, *, threads: int = 1) -> LineModel:
        """The model that the line runs.

        Raises:
            EngineError: there is none yet, or its engines do not open.
            DamagedFileError: a file is not what was written.

        """
        deployment = self.deployments.current()
        if deployment is None:
            raise EngineError(
                "the line has no engine yet",
                seen=self.folder,
                remedy="wait for headquarters to publish a version, or activate one: `fedclient engines list`",
            )
        return self.open(deployment, threads=threads)

    def guards(self, model: ServedModel) -> Sequence[Guard]:
        """What is asked beside the thresholds; without the plant's bounds where they are damaged."""
        try:
            return (InputGuard.load(self.reference, model.preprocessing), DistanceGuard())
        except DamagedFileError as error:
            logger.error("%s", error)
            return (InputGuard({}), DistanceGuard())

    def drift_watch(self, settings: DriftSettings) -> Optional[DriftWatch]:
        """The drift detector, for the first process that asks: two would write one file in turns."""
        lock = Occupied(self.line / "drift.lock", "the watch for drift")
        try:
            lock.acquire()
        except AlreadyRunningError:
            return None
        self._locks.append(lock)  # held until the process ends
        return DriftWatch(self.drift_path, settings)
