"""Operator log of the running server: JSON lines in a file, and a live view or plain lines at the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedserver.operations.live_view import LiveView
from fedserver.rounds.events import event_from
from fedspect.files import append_bounded

QUIET = ("PlantReplied",)  # events that are for reports and the live view, not for the log


class OperatorLog:
    """Writes to the log at ``path`` and to the terminal.

    Args:
        path: the server's log.
        note: prints a line, where there is no live view.
        view: the live view, at a terminal.

    """

    def __init__(self, path: Path, note: Callable[[str], None], view: LiveView | None = None) -> None:
        self._path = path
        self._view = view
        self._note = note if view is None else view.note

    def say(self, text: str) -> None:
        """Log a sentence of the server's own."""
        append_bounded(self._path, {"time": time.time(), "text": text})
        self._note(text)

    def event(self, row: Mapping[str, Any]) -> None:
        """Log an event of the rounds, as a row of their event log."""
        kind, text = row.get("event"), str(row.get("text", ""))
        if kind not in QUIET:
            append_bounded(self._path, {"time": time.time(), "event": kind, "text": text})
        event = None if self._view is None else event_from(row)
        if self._view is not None and event is not None:
            self._view(event)
        elif kind not in QUIET:
            self._note(text)
