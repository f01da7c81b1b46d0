"""Deployment reports of plants: one small file a plant in the registry.

::

    registry/deployments/plant-a.json     the last reports, newest last
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedspect import files
from fedspect.errors import DamagedFileError
from fedspect.locking import exclusive
from fedspect.protocol.versions import DeploymentReport

KEPT = 20  # reports of one plant

ON_THE_LINE = ("activated", "rolled-back")  # outcomes after which the line runs the version


class Reported(BaseModel):
    """One report and when it came (seconds since 1970)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: float
    report: DeploymentReport


class PlantDeployments(BaseModel):
    """What one plant reported."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    line: Reported | None = None
    """The report of the version that its line runs, as far as headquarters knows."""
    reports: list[Reported] = Field(default_factory=list)

    @property
    def last(self) -> Reported | None:
        """The newest report."""
        return self.reports[-1] if self.reports else None


class DeploymentReports:
    """The folder with the plants' reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, plant: str, report: DeploymentReport, *, at: float) -> None:
        """Store a plant's report; the oldest are dropped."""
        with exclusive(self.folder / ".lock"):
            known = self.of(plant)
            reported = Reported(at=at, report=report)
            line = reported if report.outcome in ON_THE_LINE else known.line
            now = PlantDeployments(line=line, reports=[*known.reports, reported][-KEPT:])
            files.write_json(self._path(plant), now.model_dump(mode="json"))

    def of(self, plant: str) -> PlantDeployments:
        """What one plant reported; nothing where it never did.

        Raises:
            DamagedFileError: the file cannot be read.

        """
        path = self._path(plant)
        try:
            return PlantDeployments.model_validate(files.read_json(path))
        except FileNotFoundError:
            return PlantDeployments()
        except ValidationError as error:
            raise DamagedFileError(
                "a plant's deployment reports cannot be read",
                seen=f"{path}: {error.errors()[0]['msg']}",
                remedy="remove the file: the plant's next report begins a new one",
            ) from error

    def _path(self, plant: str) -> Path:
        return self.folder / f"{plant}.json"
