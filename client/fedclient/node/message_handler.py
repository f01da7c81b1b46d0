"""Message handler: what a node does with each kind of message (``fedspect.protocol.messages``).

A plant's training happens in a worker, in simulation in the same process, at a plant in a long-lived process of its
own; the handler carries bytes between it and whatever brought the message. It knows neither Flower nor torch.

A worker that fails must not take the node along: the server gets the reason instead of a body.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fedspect.errors import FedspectError, UpdateFormatError, YieldedError
from fedspect.protocol.messages import DESCRIBE, NOTICE, TRAIN

LONGEST_NOTICE = 4000
LONGEST_REASON = 2000

logger = logging.getLogger("fedclient.node")


class WorkerPort(Protocol):
    """What the node needs of a worker, wherever that runs."""

    def work(self, task: bytes) -> bytes:
        """Do a ``RoundTask`` and answer with a ``RoundReply``, both as bytes."""
        ...

    def describe(self) -> bytes:
        """A ``PlantDescription`` as bytes."""
        ...


@dataclass(frozen=True)
class Answer:
    """The answer to a message: its body, or why there is none."""

    body: bytes = b""
    failure: str | None = None


def log_notice(text: str) -> None:
    """Put what the server says into the node's log."""
    logger.warning("the server says: %s", text)


class MessageHandler:
    """Answers messages with a worker.

    Args:
        worker: does what is asked; a function that finds it may fail like the worker itself.
        on_notice: is given what the server has to say to the plant's engineer.

    """

    def __init__(
        self, worker: Callable[[], WorkerPort], *, on_notice: Callable[[str], None] = log_notice
    ) -> None:
        self._worker = worker
        self._on_notice = on_notice

    def __call__(self, kind: str, body: bytes) -> Answer:
        """The answer to one message, whatever happens."""
        try:
            return Answer(self._answer(kind, body))
        except YieldedError as error:  # the plant's own rules: said where they are looked at
            logger.info("%s", error)
            return failed(error)
        except FedspectError as error:
            logger.warning("the worker did not answer: %s", error)
            return failed(error)
        except Exception as error:  # whatever it is, the node lives on and the server hears of it
            logger.exception("the worker failed")
            return failed(error)

    def _answer(self, kind: str, body: bytes) -> bytes:
        if kind == TRAIN:
            return self._worker().work(body)
        if kind == DESCRIBE:
            return self._worker().describe()
        if kind == NOTICE:
            self._on_notice(body[:LONGEST_NOTICE].decode("utf-8", "replace"))
            return b""
        raise UpdateFormatError(
            "a message of a kind that this plant does not know",
            seen=kind,
            accepted=", ".join((TRAIN, DESCRIBE, NOTICE)),
            remedy="bring both sides to the same version of Fedspect",
        )


def failed(error: Exception) -> Answer:
    """The answer that names what went wrong."""
    return Answer(failure=f"{type(error).__name__}: {error}"[:LONGEST_REASON])
