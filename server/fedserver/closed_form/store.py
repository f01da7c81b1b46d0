"""A run's closed forms on disk.

::

    closed-form/
        statistics/plant-a.reply    what a plant answered last, as it arrived
        0001/ 0002/                 one folder for each closed form: tensors, and the record of how it came about

What plants answered is kept for each of them, so that one can be replaced, or forgotten as if it had never been
there: the sums are exact, and the same answers give the same closed form whatever came between.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fedspect.discriminant.messages import MOST_STATISTICS, StatisticsReply
from fedspect.discriminant.statistics import ClassStatistics
from fedspect.errors import DamagedFileError, UpdateFormatError, storage_error
from fedspect.files import MAKING_PREFIX, read_json, remove_folder, write_bytes, write_folder
from fedspect.update.schema import Arrays

SUFFIX = ".reply"


class Gains(BaseModel):
    """What plants bring each other, on one plant's evaluation pictures: right answers of closed forms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluated: int
    together: int
    """Of all plants' statistics."""
    alone: dict[str, int]
    """Of each plant's own statistics."""
    without: dict[str, int]
    """Of all but each plant's."""


class ClosedFormRecord(BaseModel):
    """How a closed form came about, and what plants measured of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    """The hash of the head that it makes of the run's beginning."""
    plants: dict[str, dict[str, int]]
    """Training pictures by class of each plant whose sums are in it."""
    orientations: list[str]
    """Groups of orientations that are in the sums."""
    shrinkage: float
    temperature: float
    limit: float | None
    """Squared distance beyond which a picture is unlike training; not set: nothing was held out to tell."""
    evaluated: int
    """The plants' evaluation pictures that chose all this; 0: the defaults hold."""
    right: int
    confusion: list[list[int]] | None
    loss: float | None
    """Nats a picture, at the temperature."""
    candidates: list[dict[str, float | str]]
    """What was tried, with the pictures that each answered rightly."""
    gains: dict[str, Gains] | None = None
    """By the plant on whose evaluation pictures they were measured."""
    seconds: float
    bytes_up: int
    """Of the statistics."""
    notes: list[str]

    @property
    def accuracy(self) -> float | None:
        """The share of right answers."""
        return self.right / self.evaluated if self.evaluated else None


class ClosedFormStore:
    """The folder ``closed-form`` of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # -- statistics ----------------------------------------------------------------------------------------

    def plants(self) -> list[str]:
        """The plants whose statistics are here."""
        return sorted(path.name[: -len(SUFFIX)] for path in self._statistics().glob(f"*{SUFFIX}"))

    def keep(self, plant: str, body: bytes) -> None:
        """Keep a plant's answer in place of its last one."""
        write_bytes(self._statistics() / f"{plant}{SUFFIX}", body)

    def forget(self, plant: str) -> bool:
        """Remove what a plant answered; whether there was anything."""
        path = self._statistics() / f"{plant}{SUFFIX}"
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error(error, path, "forgetting a plant's statistics") from error
        return True

    def statistics(self, plant: str, classes: int, features: int) -> dict[str, ClassStatistics]:
        """A plant's statistics by orientation group.

        Raises:
            DamagedFileError: the file is not what was kept.

        """
        path = self._statistics() / f"{plant}{SUFFIX}"
        try:
            return StatisticsReply.from_bytes(path.read_bytes(), MOST_STATISTICS).statistics(
                classes, features
            )
        except (UpdateFormatError, OSError) as error:
            raise DamagedFileError(
                "a plant's class statistics are not what was kept",
                seen=f"{path}: {error}",
                remedy=f"`fedserver plants forget {plant}` removes them; the plant is asked again",
            ) from error

    def bytes_up(self) -> int:
        """What all statistics weigh."""
        return sum(path.stat().st_size for path in self._statistics().glob(f"*{SUFFIX}"))

    # -- closed forms --------------------------------------------------------------------------------------

    def numbers(self) -> list[int]:
        """All closed forms of the run, oldest first."""
        return sorted(int(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdigit())

    def latest(self) -> ClosedFormRecord | None:
        """The record of the newest."""
        numbers = self.numbers()
        return self.record(numbers[-1]) if numbers else None

    def record(self, number: int) -> ClosedFormRecord:
        """The record of one."""
        return ClosedFormRecord.model_validate(read_json(self._folder(number) / "record.json"))

    def add(self, tensors: Arrays, record: ClosedFormRecord) -> None:
        """Keep a new closed form: all of it or, after a crash, nothing."""
        for left in self.folder.glob(f"{MAKING_PREFIX}*"):
            remove_folder(left)
        number = (self.numbers() or [0])[-1] + 1
        files = {
            "tensors.safetensors": save_tensors(tensors),
            "record.json": record.model_dump_json(indent=1).encode("utf-8"),
        }
        write_folder(self._folder(number), files)

    def tensors(self, version: str | None = None) -> Arrays:
        """The tensors of the newest, or of the one that made a version; none where there is none."""
        for number in reversed(self.numbers()):
            if version in (None, self.record(number).version):
                path = self._folder(number) / "tensors.safetensors"
                try:
                    return load_tensors(path.read_bytes())
                except (OSError, SafetensorError, ValueError) as error:
                    raise DamagedFileError(
                        "a closed form is not what was written",
                        seen=f"{path}: {error}",
                        remedy="remove its folder: it is found again from the plants' statistics",
                    ) from error
        return {}

    def _statistics(self) -> Path:
        return self.folder / "statistics"

    def _folder(self, number: int) -> Path:
        return self.folder / f"{number:04d}"
