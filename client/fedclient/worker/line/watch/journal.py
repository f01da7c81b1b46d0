"""Journal of a watched folder: which pictures have their verdict, one line each, on disk before anyone is told.

The journal is the truth. A file of verdicts beside it (``--output``) is brought up to it at each start, so that a
process killed between the two writes neither loses a line nor writes one twice. How far it was written is kept
beside the journal too, for an output that was rotated away: the new one goes on where the old one ended.

A picture is known by size, time of last change, and inode or name: renaming keeps the inode, mounting a share again
keeps the name, writing a picture anew keeps neither size nor time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Set

from fedspect.errors import storage_error
from fedspect.files import append_line, as_json, lines_of, read_json_lines, write_text

LARGEST = 16 << 20  # bytes; then the journal forgets pictures that are no longer in the folder
ABSENT = 3600.0  # seconds between two looks at both of which a picture that is forgotten was absent
TAIL = 1 << 20


def key_of(facts: os.stat_result) -> str:
    """Inode, size and time of last change."""
    return f"{facts.st_ino:x}-{facts.st_size:x}-{facts.st_mtime_ns:x}"


def _place(key: str, name: str) -> str:
    """Name, size and time of last change."""
    return f"{name}:{key.partition('-')[2]}"


def _marks(row: Mapping[str, Any]) -> Set[str]:
    return {str(row["key"]), _place(str(row["key"]), str(row.get("file")))}


class Journal:
    """The journal of one folder. One process at a time."""

    def __init__(
        self, path: Path, output: Optional[Path] = None, *, largest: int = LARGEST, absent: float = ABSENT
    ) -> None:
        """Read what was written, and bring ``output`` up to it.

        Raises:
            StorageError: the files cannot be read or written.

        """
        self.path = path
        self.output = output
        self.largest = largest
        self._between = absent
        self._forget_at = 0.0
        self._absent: Set[str] = set()
        rows = self._rows()
        self._known: Set[str] = {mark for row in rows for mark in _marks(row)}
        self.count = max([int(row["seq"]) for row in rows], default=0)
        if output is not None:
            mark = hashlib.sha256(str(output.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:12]
            self._carried_path = path.with_name(f"{path.stem}-{mark}.carried")
            behind = self._last_in_output() or self._carried()
            for row in rows:
                if int(row["seq"]) > behind:
                    self._carry(row)

    def knows(self, key: str, name: str) -> bool:
        """Whether a picture has its verdict: under this key, or under this name at this size and time."""
        return key in self._known or _place(key, name) in self._known

    def add(self, key: str, row: Dict[str, Any]) -> Dict[str, Any]:
        """Append a verdict, here and in the output; the row with its number.

        Raises:
            StorageError: it is written nowhere then, or in the journal only, and is carried over later.

        """
        numbered = {"seq": self.count + 1, "key": key, **row}
        append_line(self.path, as_json(numbered))
        self.count += 1
        self._known |= _marks(numbered)
        self._carry(numbered)
        return numbered

    def forget_absent(self, present: Mapping[str, str]) -> None:
        """Once the journal is large: keep only the pictures (names by key) that are there, or were there when this
        was last looked at, and the last line.
        """
        if time.monotonic() < self._forget_at:
            return
        try:
            if self.path.stat().st_size < self.largest:
                return
        except FileNotFoundError:
            return
        self._forget_at = time.monotonic() + self._between
        rows = self._rows()
        marks = set(present).union(_place(key, name) for key, name in present.items())
        absent = {str(row["key"]) for row in rows if not _marks(row) & marks}
        gone, self._absent = absent & self._absent, absent
        if not gone:
            return
        kept = [row for row in rows if row["key"] not in gone or int(row["seq"]) == self.count]
        write_text(self.path, "".join(as_json(row) + "\n" for row in kept))
        self._known = {mark for row in kept for mark in _marks(row)}
        self.largest = max(self.largest, 2 * self.path.stat().st_size)

    def _rows(self) -> List[Dict[str, Any]]:
        try:
            rows = read_json_lines(self.path)
        except OSError as error:
            raise storage_error(error, self.path, "reading the journal of verdicts") from error
        return [
            row for row in rows if isinstance(row, dict) and "key" in row and isinstance(row.get("seq"), int)
        ]

    def _carry(self, row: Mapping[str, Any]) -> None:
        """Write a line to the output, and down how far the output is."""
        if self.output is None:
            return
        if "skipped" not in row:
            append_line(self.output, as_json(row))
        # in place and not flushed: a kill loses nothing, and after a power cut the output itself still says it
        try:
            descriptor = os.open(self._carried_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(descriptor, b"%020d" % int(row["seq"]), 0)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_error(
                error, self._carried_path, "keeping how far the verdicts were written"
            ) from error

    def _carried(self) -> int:
        try:
            return int(self._carried_path.read_bytes()[:20])
        except (FileNotFoundError, ValueError):
            return 0
        except OSError as error:
            raise storage_error(
                error, self._carried_path, "reading how far the verdicts were written"
            ) from error

    def _last_in_output(self) -> int:
        """The number of the last whole line of the output; 0 where it has none."""
        assert self.output is not None
        try:
            with self.output.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
                lines = lines_of(file.read())
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise storage_error(error, self.output, "reading the file of verdicts") from error
        for line in reversed(lines):
            try:
                row = json.loads(line)
                return int(row["seq"])
            except (ValueError, KeyError, TypeError):
                continue
        return 0
