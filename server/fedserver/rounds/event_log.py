"""Event log: events as JSON lines, for a live view in another process, and as sentences in the log of this one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from fedserver.rounds.events import Event, PlantLost, PlantRefused, Waiting
from fedspect.files import append_bounded

logger = logging.getLogger("fedserver.rounds")


class EventLog:
    """An ``on_event`` that appends each event to a file; the file is renamed when it has grown large."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        """Append one event."""
        trouble = isinstance(event, (PlantLost, PlantRefused, Waiting))
        logger.log(logging.WARNING if trouble else logging.INFO, "%s", event)
        append_bounded(self.path, {**event.as_dict(), "text": str(event)})


class EventTail:
    """What another process appended to its ``EventLog`` since the last look, from the first look on; with
    ``from_start`` also what was there before.
    """

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self.path = path
        self._at = path.stat().st_size if path.exists() and not from_start else 0

    def new(self) -> list[dict[str, Any]]:
        """The events that came since, each whole; one that is being written comes with the next look."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._at:
                    self._at = 0  # the file had grown large and was begun anew
                file.seek(self._at)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._at += len(whole)
        events = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return [event for event in events if isinstance(event, dict)]
