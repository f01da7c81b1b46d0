"""Flower's Grid as the round loop's transport."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flwr.common import Message, RecordDict
from flwr.server import Grid

from fedserver.flower.envelope import content_with, failure_of, take_body
from fedserver.rounds.transport import Reply
from fedspect.errors import UpdateFormatError


class GridTransport:
    """A ``fedserver.rounds.transport.Transport`` over any Grid of Flower, a SuperLink's or a simulation's."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._content: tuple[bytes, RecordDict] | None = None

    def nodes(self) -> set[int]:
        """The nodes that Flower holds for online."""
        return set(self._grid.get_node_ids())

    def send(self, node: int, kind: str, body: bytes, *, lifetime: float, group: str) -> str | None:
        """Give a message to Flower, which keeps it for an absent node as long as it lives."""
        if self._content is None or self._content[0] is not body:
            self._content = (body, content_with(body))  # many plants get the same bytes: wrap them once
        message = Message(self._content[1], dst_node_id=node, message_type=kind, ttl=lifetime, group_id=group)
        identities = list(self._grid.push_messages([message]))
        return identities[0] or None if identities else None

    def receive(self, messages: Sequence[str]) -> Iterable[Reply]:
        """The replies that Flower has."""
        for message in self._grid.pull_messages(messages):
            identity = message.metadata.reply_to_message_id
            if message.has_error():
                yield Reply(identity, failure=failure_of(message))
                continue
            try:
                yield Reply(identity, take_body(message))
            except UpdateFormatError as error:
                yield Reply(identity, failure=str(error))
