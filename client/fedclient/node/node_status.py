"""Node status, written in one place for all who read it: `fedclient status`, the live view, headquarters.

The node's threads put what they know here. ``status.json`` in the plant's home is the same as a file, replaced
whole; what changes with every batch reaches it every two seconds at most. A disk that takes no more files does
not end the node: the status is then only in memory.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from fedclient.node.home import PlantHome
from fedspect import files
from fedspect.errors import StorageError

WRITE_EVERY = 2.0  # seconds, for progress

logger = logging.getLogger("fedclient.node")


class NodeStatus:
    """``facts`` are JSON values by name; ``on_change`` is told after each change, in the thread that made it.

    * ``state``, ``detail``, ``since``, ``pid``: what the node itself is doing.
    * ``training``: what blocks training now (``Blocker.as_dict``), ``None`` when it may run.
    * ``work``: stage, done and total of what the worker is doing, ``None`` when it is idle.
    * ``round``: run, round and how many, and when answered the accuracy of what was received and the loss.
    * ``version``: the published version that was looked at last, and what became of it.
    * ``problems``: by subject, what a person should mend.
    """

    def __init__(
        self,
        home: PlantHome,
        *,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = home.status_path
        self._on_change = on_change
        self._clock = clock
        self._lock = threading.Lock()
        self._written = 0.0
        self._facts: dict[str, Any] = {"pid": os.getpid(), "problems": {}}

    @property
    def facts(self) -> dict[str, Any]:
        """A copy of the status."""
        with self._lock:
            return dict(self._facts)

    def set_state(self, state: str, detail: str = "") -> None:
        """Set what the node itself is doing."""
        self.put(state=state, detail=detail, since=self._clock())

    def put(self, **facts: Any) -> None:
        """Set values, in memory and in the file."""
        with self._lock:
            self._facts.update(facts)
            self._write()
        self._on_change()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Set the worker's progress."""
        with self._lock:
            self._facts["work"] = {"stage": stage, "done": done, "total": total}
            if not self._written <= self._clock() < self._written + WRITE_EVERY:
                self._write()
        self._on_change()

    def problem(self, subject: str, text: str | None) -> bool:
        """Set a problem, or clear it with ``None``; whether that is new."""
        with self._lock:
            problems = dict(self._facts["problems"])
            if problems.get(subject) == text:
                return False
            problems.pop(subject, None)
            if text is not None:
                problems[subject] = text
            self._facts["problems"] = problems
            self._write()
        self._on_change()
        return True

    def _write(self) -> None:
        self._written = self._clock()
        try:
            files.write_json(self._path, self._facts)
        except StorageError as error:
            logger.warning("the status cannot be written: %s", error)
