"""Message store: the one message that a plant has taken and not yet answered, on disk, and then its answer.

A node that is killed goes on with it when it comes back, and hands in the very answer that it had. The server offers a
message until it is answered, so what the store could not keep comes again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from flwr.common import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from google.protobuf.message import DecodeError

from fedspect import files
from fedspect.errors import StorageError

KEPT = b"m"
MOST_STARTS = 3
"""A message that a node did not survive this often is given up: it may be what ends it."""

logger = logging.getLogger("fedclient.node")


@dataclass(frozen=True)
class Left:
    """What an earlier node left."""

    message: Message
    """A message, or the answer to one: that replies to another."""
    given_up: bool = False
    """Too many nodes did not survive it."""


class MessageStore:
    """The file ``path``: absent, a message, or the answer to one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, message: Message) -> None:
        """A message that came, or the answer that is going to be handed in."""
        self._write(0, message_to_proto(message).SerializeToString())

    def done(self) -> None:
        """It was answered, or nobody wants the answer any more."""
        self._path.unlink(missing_ok=True)

    def left(self) -> Left | None:
        """What an earlier node left, counted as started once more; ``None`` when it left nothing of use."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            if content[:1] != KEPT:
                raise ValueError("not a message")
            starts, body = content[1], content[2:]
            message = message_from_proto(ProtoMessage.FromString(body))
        except (DecodeError, ValueError, TypeError, KeyError, IndexError) as error:
            logger.error("the message in hand cannot be read (%s): it will be sent again", error)
            self.done()
            return None
        if starts >= MOST_STARTS:
            logger.error("a message was begun %d times and never answered: given up", starts)
            return Left(message, given_up=True)
        self._write(starts + 1, body)
        return Left(message)

    def _write(self, starts: int, body: bytes) -> None:
        """Keep it if that can be done: with a full disk the message is answered all the same."""
        try:
            files.write_bytes(self._path, KEPT + bytes([starts]) + body, mode=0o600)
        except StorageError as error:
            logger.warning("the message in hand is not kept: %s", error)
            self.done()
