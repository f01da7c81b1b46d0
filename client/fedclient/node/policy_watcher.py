"""Policy watcher: a thread that applies what the plant's engineer changes while the node runs.

A blocker of training is in the node's status within a second, and is printed when it begins and ends. The
worker is ended then, so that the line has its memory too.
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
        worker: WorkerSupervisor,
        say: Callable[[str], None],
        *,
        on_news: Callable[[], None] = lambda: None,
    ) -> None:
        self._worker = worker
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
        yield_policy, status = self._worker.yield_policy, self._worker.status
        blocker = yield_policy.schedule_blocker()
        found = None if blocker is None else blocker.as_dict()
        if status.facts.get("training") != found:
            status.put(training=found)
        kind = None if blocker is None else blocker.kind
        if kind != self._kind:
            self._kind = kind
            self._say("training may run" if blocker is None else f"training waits: {blocker.reason}")
            self._on_news()
        if blocker is not None:
            self._worker.rest()
        problem = yield_policy.file.problem
        if status.problem("settings", problem) and problem is not None:
            self._say(f"the settings stay as they were: {problem}")
