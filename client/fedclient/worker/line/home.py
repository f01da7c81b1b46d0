"""The files in a plant's home that the line knows: deployments, engines, and its own folder ``line``."""

from __future__ import annotations

from pathlib import Path

from fedclient.worker.deployments import Deployment, Deployments
from fedclient.worker.engines import EngineStore, LineModel, open_model
from fedspect.errors import EngineError
from fedspect.locking import Occupied


class LineHome:
    """Where things are; nothing is made before it is written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        self.line = self.folder / "line"
        self.asked = self.line / "asked"
        self.drift_path = self.line / "drift.json"
        self.reference = self.line / "reference"
        self.deployments = Deployments(self.folder / "deployments")
        self.store = EngineStore(self.folder / "engines")

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
