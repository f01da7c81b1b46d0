"""Flower's Grid as the round loop's transport: any Grid by its public methods, a SuperLink's with whole messages."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, cast

import grpc
from flwr.common import Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.appio_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.server import Grid
from flwr.server.grid import GrpcGrid

from fedserver.flower.envelope import content_with, failure_of, take_body
from fedserver.rounds.transport import Reply
from fedspect.errors import ConnectionLostError, UpdateFormatError

MOST_REPLIES = 8
"""Replies that may be in memory at once."""


class GridTransport:
    """A ``fedserver.rounds.transport.Transport`` over any Grid of Flower, for instance its simulation's."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> set[int]:
        """The nodes that Flower holds for online."""
        return set(self._grid.get_node_ids())

    def send(
        self, nodes: Sequence[int], kind: str, body: bytes, *, lifetime: float, group: str
    ) -> Sequence[str | None]:
        """Give messages to Flower, which keeps them for absent nodes as long as they live."""
        content = content_with(body)
        messages = [_message(content, node, kind, lifetime, group) for node in nodes]
        return [identity or None for identity in self._grid.push_messages(messages)] or [None] * len(nodes)

    def receive(self, messages: Sequence[str]) -> Iterable[Reply]:
        """Replies that Flower has, of the first messages that have any."""
        waiting = iter(messages)
        while batch := list(itertools.islice(waiting, MOST_REPLIES)):
            replies = [_reply(message) for message in self._grid.pull_messages(batch)]
            if replies:
                return replies
        return []


class SuperLinkTransport(GridTransport):
    """The same over a SuperLink, which keeps messages whole (``message_queue``): one call for many of them."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self._stub = cast(GrpcGrid, grid)._stub

    def send(
        self, nodes: Sequence[int], kind: str, body: bytes, *, lifetime: float, group: str
    ) -> Sequence[str | None]:
        """Queue messages; their common content travels once."""
        if not nodes:
            return []
        content = content_with(body)
        protos: list[ProtoMessage] = []
        for node in nodes:
            message = _message(content if not protos else RecordDict(), node, kind, lifetime, group)
            message.metadata.__dict__.update(
                _run_id=self._grid.run.run_id, _src_node_id=SUPERLINK_NODE_ID, _message_id=uuid.uuid4().hex
            )
            protos.append(message_to_proto(message))
        response = self._called("PushMessages", PushAppMessagesRequest(messages_list=protos))
        return [identity or None for identity in response.message_ids]

    def receive(self, messages: Sequence[str]) -> Iterable[Reply]:
        """Some of the replies that are here."""
        if not messages:
            return []
        response = self._called("PullMessages", PullAppMessagesRequest(message_ids=messages))
        return [_reply(message_from_proto(proto)) for proto in response.messages_list]

    def nodes(self) -> set[int]:
        """The nodes that the SuperLink holds for online."""
        try:
            return super().nodes()
        except grpc.RpcError as error:
            raise _lost(error) from error

    def _called(self, method: str, request: object) -> Any:
        try:
            return getattr(self._stub, method)(request)
        except grpc.RpcError as error:
            raise _lost(error) from error


def _lost(error: grpc.RpcError) -> ConnectionLostError:
    return ConnectionLostError("Flower's SuperLink did not answer any more", seen=error.code().name.lower())


def _message(content: RecordDict, node: int, kind: str, lifetime: float, group: str) -> Message:
    return Message(content, dst_node_id=node, message_type=kind, ttl=lifetime, group_id=group)


def _reply(message: Message) -> Reply:
    identity = message.metadata.reply_to_message_id
    if message.has_error():
        return Reply(identity, failure=failure_of(message))
    try:
        return Reply(identity, take_body(message))
    except UpdateFormatError as error:
        return Reply(identity, failure=str(error))
