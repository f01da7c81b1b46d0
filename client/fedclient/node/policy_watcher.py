"""Policy watcher: a thread that applies what the plant's engineer changes while the node runs.

What stands against training is put on the board within a second, and said aloud when it begins and ends. The
trainer is ended then, so that the line has its memory too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from fedclient.node.worker_supervisor import WorkerSupervisor

LOOK_EVERY = 1.0  # seconds

logger = logging.getLogger("fedclient.node")


class PolicyWatcher:
    """Polls once a second until ``stop`` is set."""

    def __init__(
        self,
        trainer: WorkerSupervisor,
        say: Callable[[str], None],
        *,
        on_news: Callable[[], None] = lambda: None,
    ) -> None:
        self._trainer = trainer
        self._say = say
        self._on_news = on_news
        self._kind: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Poll until told to stop; errors are logged, and the next poll follows."""
        while not stop.wait(LOOK_EVERY):
            try:
                self.look()
            except Exception:
                logger.exception("looking after the plant's settings failed")

    def look(self) -> None:
        """Poll once."""
        courtesy, board = self._trainer.courtesy, self._trainer.board
        objection = courtesy.standing()
        found = None if objection is None else objection.as_dict()
        if board.facts.get("training") != found:
            board.put(training=found)
        kind = None if objection is None else objection.kind
        if kind != self._kind:
            self._kind = kind
            self._say("training may run" if objection is None else f"training waits: {objection.reason}")
            self._on_news()
        if objection is not None:
            self._trainer.rest()
        problem = courtesy.file.problem
        if board.problem("settings", problem) and problem is not None:
            self._say(f"the settings stay as they were: {problem}")
