"""Message journal: the one message that a plant has taken and not yet answered, on disk, and then its answer.

The server hands a message out once. Were it kept in memory only, a node that is killed would leave its round
waiting for an answer until the deadline; so it is written down before the server is told that it arrived, and
a node that comes back answers it first. The server takes one answer to a message, and knows its parts by their
hashes; so the answer is written down before it is handed in, and a node that is killed in between hands in
the rest of that one.
"""

from __future__ import annotations

import logging
from pathlib import Path

from flwr.common import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message as ProtoMessage
from google.protobuf.message import DecodeError

from fedspect import files
from fedspect.errors import StorageError

OFFERED, RECEIVED, ANSWERED = b"o", b"r", b"a"
MOST_STARTS = 3
"""A message that a node did not survive this often is given up: it may be what ends it."""

logger = logging.getLogger("fedclient.node")


class MessageJournal:
    """The file ``path``: absent, an offer (the message's header and the names of its parts), a message, or
    the answer to one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def offered(self, response: PullMessagesResponse) -> None:
        """The server will not offer this again."""
        self._write(OFFERED, 0, response.SerializeToString())

    def received(self, message: Message) -> None:
        """All of it is here."""
        self._write(RECEIVED, 0, message_to_proto(message).SerializeToString())

    def answered(self, reply: Message) -> None:
        """What is going to be handed in."""
        self._write(ANSWERED, 0, message_to_proto(reply).SerializeToString())

    def done(self) -> None:
        """It was answered, or nobody wants the answer any more."""
        self._path.unlink(missing_ok=True)

    def left(self) -> PullMessagesResponse | Message | None:
        """What an earlier node left, counted as started once more; ``None`` when it left nothing of use.

        An answer is a message that replies to another.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        kind, starts, body = content[:1], content[1] if len(content) > 1 else MOST_STARTS, content[2:]
        if starts >= MOST_STARTS:
            logger.error("a message was begun %d times and never answered: given up", starts)
            self.done()
            return None
        try:
            found = _read(kind, body)
        except (DecodeError, ValueError, TypeError, KeyError) as error:
            logger.error("the message in hand cannot be read (%s): given up", error)
            self.done()
            return None
        self._write(kind, starts + 1, body)
        return found

    def _write(self, kind: bytes, starts: int, body: bytes) -> None:
        """Keep it if that can be done: with a full disk the message is answered all the same."""
        try:
            files.write_bytes(self._path, kind + bytes([starts]) + body, mode=0o600)
        except StorageError as error:
            logger.warning("the message in hand is not kept: %s", error)
            self.done()


def _read(kind: bytes, body: bytes) -> PullMessagesResponse | Message:
    if kind == OFFERED:
        response = PullMessagesResponse.FromString(body)
        if len(response.messages_list) != 1 or len(response.message_object_trees) != 1:
            raise ValueError("not one message")
        return response
    if kind in (RECEIVED, ANSWERED):
        return message_from_proto(ProtoMessage.FromString(body))
    raise ValueError("neither an offer nor a message nor an answer")
