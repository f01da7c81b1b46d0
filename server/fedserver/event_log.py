"""Events as JSON lines, for a live view in another process."""

from __future__ import annotations

import json
from pathlib import Path

from fedserver.events import Event
from fedspect.files import append_line

LARGEST_FILE = 16 << 20  # bytes; an older file of the same size stays beside it


class EventLog:
    """An ``on_event`` that appends each event to a file; the file is renamed when it has grown large."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        """Append one event."""
        if self.path.exists() and self.path.stat().st_size > LARGEST_FILE:
            self.path.replace(self.path.with_suffix(".old.jsonl"))
        append_line(self.path, json.dumps(event.as_dict(), ensure_ascii=False))
