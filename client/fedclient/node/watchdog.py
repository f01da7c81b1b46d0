"""Watchdog timer: fires when no heartbeat arrives in time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Watchdog:
    """Calls ``bite`` once when ``heard`` was not called for ``limit`` seconds within the ``with`` block.

    It looks twice in that time: where this whole process stood still for longer (a laptop's lid, Ctrl-Z), what
    was sent meanwhile is heard before the second look.
    """

    def __init__(self, limit: float, bite: Callable[[], None]) -> None:
        self._limit = limit
        self._bite = bite
        self._heard = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._heard.set()
        self._thread.join()

    def heard(self) -> None:
        """Note a heartbeat."""
        self._heard.set()

    def _watch(self) -> None:
        while self._heard.wait(self._limit / 2) or self._heard.wait(self._limit / 2):
            self._heard.clear()
            if self._over:  # it is set before the last ``heard``
                return
        self._bite()
