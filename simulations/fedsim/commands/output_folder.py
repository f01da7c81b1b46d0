"""Output folder of results: a new or empty one, or the one of an earlier run that is resumed."""

from __future__ import annotations

from pathlib import Path

from fedsim.commands.overrides import Overrides
from fedspect.errors import DamagedFileError, SettingsError, WorkspaceError
from fedspect.files import read_json

RUN = ("config.toml", "run.json")
COMPARISON = ("federation/config.toml", "asked.json")
"""Where settings and state lie, in a run's folder and in a comparison's."""


def folder_to_resume(
    output: Path | None, runs: Path, given: Overrides, *, files: tuple[str, str] = RUN
) -> Path:
    """The run to go on with: the one that was named, else the one in ``runs`` that was last worked on.

    One that is not finished comes before all that are. ``files`` are RUN or COMPARISON.

    Raises:
        SettingsError: settings were given too; a run goes on with its own.
        WorkspaceError: there is no run to go on with.

    """
    others = [word for word in given.words() if files != RUN or word != "--data"]
    if others:
        raise SettingsError(
            "a run goes on with the settings that it was started with",
            seen=", ".join(others),
            accepted="--resume with --output, --json, and for a run --data, where its pictures were moved to",
            remedy="leave the others out, or start a new run",
        )
    if output is not None:
        if not (output / files[0]).exists():
            raise WorkspaceError(
                "there is nothing to go on with",
                seen=output,
                accepted=f"the folder of an earlier `fedsim {'run' if files == RUN else 'compare'}`",
                remedy="name it with --output, or leave --output out to take the latest",
            )
        return output
    begun = [path for path in runs.glob("*") if (path / files[0]).exists()]
    if not begun:
        raise WorkspaceError(
            "there is no run to go on with", seen=runs, remedy="name the folder of one with --output"
        )
    return max(begun, key=lambda path: _worth(path / files[0], path / files[1]))


def _worth(settings: Path, state: Path) -> tuple[bool, int]:
    """How much a run is worth going on with: those that wait for it first, then the latest."""
    if not state.exists():  # it was killed before its first word
        return True, settings.stat().st_mtime_ns
    try:
        waits = read_json(state)["state"] != "finished"
    except (DamagedFileError, KeyError, TypeError):
        waits = False
    return waits, state.stat().st_mtime_ns


def check_new(path: Path, *, resumable: bool = False, besides: str = "") -> None:
    """Make sure that what comes out writes over nothing, a file named ``besides`` apart; raises
    WorkspaceError.
    """
    if path.is_file() or (path.is_dir() and any(each.name != besides for each in path.iterdir())):
        raise WorkspaceError(
            "the folder for the result is not empty",
            seen=path,
            accepted="a folder that does not exist yet, or an empty one",
            remedy="choose another --output"
            + (", or go on with what is there (--resume)" if resumable else ""),
        )
