"""Deployment history: every decision about a device's engines, one JSON line each, bounded.

What the pointer needs when it cannot be read, or when a version comes a second time, are its moves: they stay,
without their figures, when other entries go.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import List, Optional, Sequence

from pydantic import ValidationError

from fedclient.worker.deployments.record import Entry, Pointer
from fedspect.errors import StorageError
from fedspect.files import append_line, read_json_lines, write_text

MOST_ENTRIES = 1000  # with their figures
MOST_MOVES = 2000  # of the older ones, without
SLACK = 100  # more, before the file is written anew
MOST_EARLIER = 20  # deployments that rollback can still reach


class History:
    """``history.jsonl``; whoever changes it holds the lock of the deployments."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> List[Entry]:
        """The oldest first; a torn line is left out."""
        entries = []
        for row in read_json_lines(self.path):
            with contextlib.suppress(ValidationError):
                entries.append(Entry.model_validate(row))
        return entries

    def append(self, entry: Entry) -> None:
        """Append an entry; raises ``StorageError``."""
        append_line(self.path, entry.model_dump_json())

    def bound(self, entries: Sequence[Entry]) -> None:
        """Write the file anew where ``entries``, which it holds, are too many; a full disk leaves it as it is."""
        old, recent = entries[:-MOST_ENTRIES], entries[-MOST_ENTRIES:]
        moves = [each.model_copy(update={"figures": {}}) for each in old if each.serial][-MOST_MOVES:]
        if len(entries) <= len(moves) + len(recent) + SLACK:
            return
        with contextlib.suppress(StorageError):
            write_text(self.path, "".join(f"{each.model_dump_json()}\n" for each in [*moves, *recent]))


def left_behind(entries: Sequence[Entry], version: str) -> Optional[Entry]:
    """The rollback by which the device went back from a version; None where it did not, or took it again since."""
    found: Optional[Entry] = None
    running = ""
    for entry in entries:
        if entry.serial == 0:
            continue
        if entry.event == "rolled back" and running == version:
            found = entry
        if entry.version == version:
            found = None
        running = entry.version
    return found


def last_pointer(entries: Sequence[Entry]) -> Optional[Pointer]:
    """The pointer rebuilt from the history; None where there is none."""
    earlier: List[str] = []
    last: Optional[Entry] = None
    for entry in entries:
        if entry.serial == 0 or entry.id is None:
            continue
        if entry.event == "rolled back" and entry.id in earlier:
            del earlier[earlier.index(entry.id) :]
        elif last is not None and last.id is not None:
            earlier = [each for each in [*earlier, last.id] if each != entry.id][-MOST_EARLIER:]
        last = entry
    if last is None or last.id is None:
        return None
    return Pointer(current=last.id, earlier=earlier, move=last)
