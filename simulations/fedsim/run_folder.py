"""Run folder: the files of one run, its lock, and the pictures it was dealt.

::

    config.toml     the settings, whole                  run.json          what it is, where it stands
    prepared.json   what preparation settled             metrics.jsonl     what happened, a row each
    test.json       the fixed test set                   problems.json     files that are left out, or odd
    plants/         plant-1.json: who holds what         pictures/         synthetic ones, if any
    base/           the base model of this run           rounds/           the server's store, round by round
    work/plant-1/   what a plant keeps on its disk       cache/            frozen features; may be removed
    model/          the network that came out            evaluation.json   what it does on the test set
    figures/        plots                                report.html       all of it on one page

``prepared.json`` is written last in preparation: a run killed before that prepares again, with the same end.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fedsim.config import SimulationSettings
from fedspect.data.pictures import CheckedPicture, Picture
from fedspect.errors import (
    DamagedFileError,
    SettingsError,
    WorkspaceError,
    storage_error,
)
from fedspect.files import read_json, write_json, write_text
from fedspect.locking import Occupied
from fedspect.settings import load_settings
from fedspect.toml_writer import commented_toml

FORMAT_VERSION = 1
LOCK = ".lock"
FILES = ("config", "run", "prepared", "metrics", "test", "problems", "evaluation", "report")
MADE = {
    *(name + suffix for name in FILES for suffix in (".toml", ".json", ".jsonl", ".html")),
    *("plants", "pictures", "base", "rounds", "work", "cache", "model", "figures", "heat", LOCK),
}
"""Everything that a run puts into its folder."""


class Prepared(BaseModel):
    """What preparation settled, for everybody who works in the run folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    classes: list[str]
    root: str
    """The folder of pictures; relative if it lies in the run folder."""
    plants: list[str]
    freeze_levels: int
    base_hash: str
    closed_form: bool = False
    """Whether the run begins at a closed form."""
    left_out: int
    """Files that could not be used."""
    split: str = ""
    """How the test set was chosen."""
    understood: str = ""
    """What was understood of the source of pictures, in one sentence."""
    bit_depth: int | None = None
    """Of the camera, for files of 16 bits; None where there are none."""


class RunFolder:
    """The paths of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.facts = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.prepared = path / "prepared.json"
        self.test = path / "test.json"
        self.plants = path / "plants"
        self.pictures = path / "pictures"
        self.base = path / "base"
        self.rounds = path / "rounds"
        self.cache = path / "cache"
        self.model = path / "model"
        self.evaluation = path / "evaluation.json"
        self.problems = path / "problems.json"
        self.report = path / "report.html"

    def work(self, plant: str) -> Path:
        """What a plant keeps between rounds."""
        return self.path / "work" / plant

    def check_empty(self) -> None:
        """Make sure that nothing is written over.

        Raises:
            WorkspaceError: there is something in the folder.
            StorageError: it cannot be looked into.

        """
        try:
            taken = self.path.is_dir() and any(each.name != LOCK for each in self.path.iterdir())
        except OSError as error:
            raise storage_error(error, self.path, "looking into the run folder") from error
        if taken or self.path.is_file():
            raise WorkspaceError(
                "the folder for the run is not empty",
                seen=self.path,
                accepted="a folder that does not exist yet, or an empty one",
                remedy="choose another --output, go on with the run in it (--resume), "
                "or remove it first (--overwrite)",
            )

    def clear(self) -> None:
        """Remove an earlier run, so that another may take its place; a folder that is not there is fine.

        Raises:
            WorkspaceError: no run was begun there, or there is anything that no run makes; nothing is removed then.
            AlreadyRunningError: another process works in it.
            StorageError: something cannot be removed.

        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise WorkspaceError(
                "the place for the run is a file", seen=self.path, remedy="choose another --output"
            )
        names = sorted(each.name for each in self.path.iterdir() if each.name != LOCK)
        foreign = [name for name in names if name not in MADE]
        # a run writes its settings first: without them "pictures" or "model" are somebody else's
        if foreign or (names and not self.config.exists()):
            raise WorkspaceError(
                "the folder holds something else than a run, so it is not overwritten",
                seen=f"{self.path}: {', '.join((foreign or names)[:5])}",
                remedy="choose another --output, or empty the folder by hand",
            )
        with self.held():
            for each in self.path.iterdir():
                try:
                    if each.is_dir() and not each.is_symlink():
                        shutil.rmtree(each)
                    elif each.name != LOCK:
                        each.unlink()
                except OSError as error:
                    raise storage_error(error, each, "removing an earlier run") from error

    def discard(self) -> None:
        """Remove a run in which nothing was prepared, and its folder if that is empty then; raises as ``clear``."""
        self.clear()
        with contextlib.suppress(OSError):
            (self.path / LOCK).unlink()
            self.path.rmdir()

    def start(self, settings: SimulationSettings) -> None:
        """Make the folder for a new run; raises as ``check_empty``, or StorageError."""
        self.check_empty()
        write_text(self.config, commented_toml(settings, heading="The settings of this run of fedsim."))

    def settings(self) -> SimulationSettings:
        """The settings that the run was started with.

        Raises:
            WorkspaceError: no run was started here, or its settings are of another version.

        """
        if not self.config.is_file():
            raise WorkspaceError(
                "there is no run to go on with",
                seen=self.path,
                accepted="the folder of an earlier `fedsim run`",
                remedy="name it with --output",
            )
        try:
            return load_settings(self.config, SimulationSettings)
        except SettingsError as error:
            raise WorkspaceError(
                "the settings of the run are not of this version",
                seen=f"{self.config}: {error}",
                remedy="start a new run, or go on with the version that started it",
            ) from error

    def read_prepared(self) -> Prepared | None:
        """What preparation settled, or None if it did not come to its end."""
        try:
            return Prepared.model_validate(read_json(self.prepared))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise _damaged(self.prepared, str(error.errors()[0]["msg"])) from error

    def pictures_moved_to(self, place: Path) -> None:
        """Find the pictures at another place from now on; their content is compared before the run goes on.

        Raises:
            WorkspaceError: the run was not prepared yet, so that a new one costs nothing.

        """
        prepared = self.read_prepared()
        if prepared is None:
            raise WorkspaceError(
                "the run has not dealt its pictures yet, so they cannot have moved",
                seen=self.path,
                remedy="start a new run",
            )
        write_json(self.prepared, prepared.model_copy(update={"root": str(place.absolute())}).model_dump())

    def root(self, prepared: Prepared) -> Path:
        """The folder of pictures."""
        return self.path / prepared.root

    def held(self) -> Occupied:
        """The lock that keeps a second process out of this folder; it goes with the process that has it."""
        return Occupied(self.path / LOCK, f"a run in {self.path}")


# -- lists of pictures -------------------------------------------------------------------------------------


def write_pictures(
    path: Path, root: Path, lists: Mapping[str, Sequence[CheckedPicture]], **more: Any
) -> None:
    """Write named lists of pictures that lie below ``root``."""
    rows = {name: [_row(each, root) for each in pictures] for name, pictures in lists.items()}
    write_json(path, {**more, "pictures": rows})


def read_pictures(path: Path, root: Path) -> dict[str, list[CheckedPicture]]:
    """The lists that ``write_pictures`` wrote.

    Raises:
        DamagedFileError: the file is missing or not what was written.

    """
    try:
        lists = read_json(path)["pictures"]
        return {name: [_picture(row, root) for row in rows] for name, rows in lists.items()}
    except (FileNotFoundError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _row(picture: CheckedPicture, root: Path) -> dict[str, Any]:
    listed = picture.picture
    row: dict[str, Any] = {
        "name": listed.name,
        "label": listed.label,
        "group": picture.group,
        "digest": picture.digest,
        "size": [picture.width, picture.height, picture.channels, picture.bits],
    }
    if listed.path != root / listed.name:
        row["path"] = str(listed.path)
    return row


def _picture(row: dict[str, Any], root: Path) -> CheckedPicture:
    name, group = str(row["name"]), str(row["group"])
    listed = Picture(Path(row.get("path", root / name)), name, row["label"], group)
    width, height, channels, bits = row["size"]
    return CheckedPicture(listed, str(row["digest"]), width, height, channels, bits, group)


def _damaged(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError(
        "a file of the run folder is not what was written", seen=f"{path}: {why}", remedy="start a new run"
    )
