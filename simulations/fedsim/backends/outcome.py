"""Outcome of a backend's run, carried out of the thread or the app in which it ended."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from flwr.server import ServerApp

from fedserver.flower.serverapp import build_server_app
from fedserver.rounds.events import Event, OnEvent, RunFinished
from fedspect.errors import FederationError, FedspectError


class BackendOutcome:
    """Listens to a run and knows its end."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._finished: RunFinished | None = None
        self._error: FedspectError | None = None

    def server_app(self, folder: Path, should_stop: Callable[[], bool]) -> ServerApp:
        """The ServerApp of the run in ``folder``, which tells this outcome everything."""
        return build_server_app(
            lambda context: folder, on_event=self._hear, on_error=self._fail, should_stop=should_stop
        )

    def result(self) -> RunFinished:
        """What the run came to.

        Raises:
            FedspectError: what ended it too early.

        """
        if self._error is not None:
            raise self._error
        if self._finished is None:
            raise FederationError(
                "the run ended without a result",
                remedy="the log says why; start it again: it goes on with the round that was cut",
            )
        return self._finished

    def _hear(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self._finished = event
        self._on_event(event)

    def _fail(self, error: FedspectError) -> None:
        self._error = error


def never() -> bool:
    """Do not stop."""
    return False


@contextlib.contextmanager
def quiet_flower(level: int) -> Iterator[None]:
    """Keep Flower's log to what is at least of this level, while the block runs."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
