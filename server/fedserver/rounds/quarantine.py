"""Quarantine releases: plants that an operator lets in again, a file for each until a closed round has it.

The server takes note of a file when it sees it, and removes it only when the plant's new record is on disk: one
that is killed before takes note of it once more.
"""

from __future__ import annotations

from pathlib import Path

from fedspect.errors import storage_error
from fedspect.files import write_text


class QuarantineReleases:
    """The folder with these files; whoever lets in and whoever takes note are different processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: dict[Path, object] = {}

    def add(self, plant: str) -> None:
        """Let a plant that was quarantined take part again, at once if the run is going on."""
        write_text(self._folder / plant, "")

    def take(self) -> list[str]:
        """The plants that were let in again since the last call."""
        found = {file: _stamp(file) for file in sorted(self._folder.glob("[!.]*"))}
        new = [file.name for file, stamp in found.items() if self._taken.get(file) != stamp]
        self._taken = found
        return new

    def settle(self) -> None:
        """What was taken is on disk by other means; who was let in once more meanwhile stays."""
        try:
            for file, stamp in self._taken.items():
                if _stamp(file) == stamp:
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, self._folder, "removing what is no longer needed") from error
        self._taken = {}


def _stamp(file: Path) -> object:
    """Something that differs when the file was written again: it is replaced, so each time is a new file."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
