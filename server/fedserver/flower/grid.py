"""Flower's Grid with pulls that never wait for a plant.

A plant hands in its answer's header first and the parts after it. Flower's own pull waits for those parts, for
over an hour where a plant died in between, and everybody else's round with it. Here a pull looks: an answer
whose parts are not all there yet stays where it is until a later pull, and only one that has not grown for
``stalled_after`` seconds becomes a failure. Nothing of an unfinished answer is kept in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import grpc
from flwr.app.error import Error
from flwr.common import Message, Metadata
from flwr.common.constant import ErrorCode
from flwr.common.message import make_message
from flwr.common.typing import Run
from flwr.proto.appio_pb2 import PullAppMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.server import Grid
from flwr.server.grid import GrpcGrid
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

STALLED_AFTER = 240.0
"""Seconds: twice as long as a plant tries to send one part before it tries again."""
LARGEST_ANSWER = 256 << 20
"""Bytes of all parts."""
MOST_PARTS = 10_000


@dataclass
class _Arriving:
    """An answer whose header is here."""

    message_id: str
    parts: list[str]
    """Object ids, in the order in which plants send them."""
    grown: float
    """When a part was last seen to have arrived."""
    here: int = 0
    """So many of the first parts have arrived."""


class NonBlockingGrid(Grid):
    """Passes everything on to the Grid of a SuperLink, except pulls.

    Args:
        grid: Flower's own.
        stalled_after: seconds without a new part after which an answer is given up.
        clock: seconds that never go back.

    """

    def __init__(
        self,
        grid: Grid,
        *,
        stalled_after: float = STALLED_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grid = cast(GrpcGrid, grid)
        self._stalled_after = stalled_after
        self._clock = clock
        self._arriving: dict[str, _Arriving] = {}

    def set_run(self, run: Run) -> None:
        """Take Flower's description of the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._grid.run

    def create_message(
        self,
        content: Any,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message the old way that ``Grid`` still asks for."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are online."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Give messages to Flower; their ids come back in the same order."""
        return self._grid.push_messages(messages)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Flower's own, which waits."""
        return self._grid.send_and_receive(messages, timeout=timeout)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers to these messages that are here as a whole, and failures in place of those that never will
        be.
        """
        wanted = list(message_ids)
        self._look_for_headers([one for one in wanted if one not in self._arriving])
        found = []
        for identity in wanted:
            arriving = self._arriving.get(identity)
            message = None if arriving is None else self._finished(identity, arriving)
            if message is not None:
                del self._arriving[identity]
                found.append(message)
        return found

    def _look_for_headers(self, message_ids: list[str]) -> None:
        if not message_ids:
            return
        response = self._grid._stub.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        for header, tree in zip(response.messages_list, response.message_object_trees, strict=True):
            metadata = header.metadata
            self._arriving[metadata.reply_to_message_id] = _Arriving(
                metadata.message_id, _parts(tree), self._clock()
            )

    def _finished(self, identity: str, arriving: _Arriving) -> Message | None:
        """The answer, if it is whole or never will be."""
        try:
            contents = self._whole(arriving)
        except _LostError as error:
            return self._failure(identity, str(error))
        if contents is None:
            if self._clock() - arriving.grown < self._stalled_after:
                return None
            return self._failure(identity, "the plant did not hand in the rest of its answer")
        self._grid._stub.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._grid.node, run_id=self.run.run_id, message_object_id=arriving.message_id
            )
        )
        try:
            message = cast(Message, inflate_object_from_contents(arriving.message_id, contents))
        except Exception as error:  # whatever Flower's decoder makes of foreign bytes concerns one plant only
            return self._failure(identity, f"an answer cannot be read: {type(error).__name__}: {error}")
        message.metadata.__dict__["_message_id"] = arriving.message_id
        return message

    def _whole(self, arriving: _Arriving) -> dict[str, bytes] | None:
        """All parts, or ``None`` while one is missing. The first one that was missing is asked for first, so that
        an answer on a slow line costs one small call a pull.
        """
        contents: dict[str, bytes] = {}
        size, parts = 0, arriving.parts
        if len(parts) > MOST_PARTS:
            raise _LostError(f"an answer has more than {MOST_PARTS} parts")
        for place in [*range(arriving.here, len(parts)), *range(arriving.here)]:
            content = self._part(parts[place])
            if content is None:
                return None
            contents[parts[place]] = content
            size += len(content)
            if size > LARGEST_ANSWER:
                raise _LostError(f"an answer is larger than {LARGEST_ANSWER} bytes")
            if place == arriving.here:
                arriving.here, arriving.grown = place + 1, self._clock()
        return contents

    def _part(self, object_id: str) -> bytes | None:
        request = PullObjectRequest(node=self._grid.node, run_id=self.run.run_id, object_id=object_id)
        try:
            response = self._grid._stub.PullObject(request)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise _LostError("a part of an answer is larger than any may be") from error
            raise
        if not response.object_found:
            raise _LostError("a part of an answer is gone")
        return bytes(response.object_content) if response.object_available else None

    def _failure(self, identity: str, reason: str) -> Message:
        """What Flower's own Grid gives in place of an answer that cannot be had."""
        node = self._grid.node.node_id
        metadata = Metadata(
            run_id=self.run.run_id,
            message_id="",
            src_node_id=node,
            dst_node_id=node,
            message_type=SYSTEM_MESSAGE_TYPE,
            group_id="",
            ttl=0,
            reply_to_message_id=identity,
            created_at=time.time(),
        )
        return make_message(metadata=metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, reason))


class _LostError(Exception):
    """An answer that will never be whole."""


def _parts(tree: ObjectTree) -> list[str]:
    """The object ids of an answer, each once, children before their parents."""
    return list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
