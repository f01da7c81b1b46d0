"""Messages out, answers in: the only place where the round loop touches Flower's ``Grid``.

``push_messages`` and ``pull_messages`` never wait, so how long to wait is decided elsewhere. Answers are
fetched a few at a time, because what a pull returns is in memory at once. A message whose answer does not
come within its lifetime becomes a failure, like one whose node died or could not be reached.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flwr.common import Message, RecordDict
from flwr.server import Grid

from fedserver.flower.envelope import TRAIN, content_with, failure_of, take_body
from fedserver.rounds.inquiry import Inquiry
from fedspect.errors import UpdateFormatError
from fedspect.update.checks import Expected

BATCH = 8  # answers that may be in memory at once


@dataclass(frozen=True)
class Sent:
    """A message that is under way."""

    node: int
    kind: str
    expires: float
    expected: Expected | None = None
    """Of a task: what its answer must match."""
    payload_kind: str = ""
    """Of a task: whether it carried the whole head, changes or nothing."""
    size: int = 0
    """The body's bytes."""
    inquiry: Inquiry | None = None
    """Of a question outside of rounds: where its answer goes."""
    plant: str = ""
    """Of such a question: who was asked."""


@dataclass(frozen=True)
class Delivery:
    """What became of a message: the answer's body, or why there is none."""

    sent: Sent
    body: bytes = b""
    failure: str | None = None


class MessageDispatcher:
    """Keeps the books of one grid: which node owes an answer to what."""

    def __init__(self, grid: Grid, clock: Callable[[], float]) -> None:
        self._grid = grid
        self._clock = clock
        self._under_way: dict[str, Sent] = {}
        self._failed: deque[Delivery] = deque()
        self._excused: set[str] = set()
        self._content: tuple[bytes, RecordDict] | None = None

    def nodes(self) -> set[int]:
        """The nodes that are online."""
        return set(self._grid.get_node_ids())

    def busy(self) -> set[int]:
        """The nodes that owe the answer to a task."""
        return {
            sent.node
            for identity, sent in self._under_way.items()
            if sent.kind == TRAIN and identity not in self._excused
        }

    def excuse(self, node: int) -> None:
        """The node went away: when it is back it owes nothing, though an answer may still come."""
        self._excused.update(one for one, sent in self._under_way.items() if sent.node == node)

    def send(
        self,
        node: int,
        kind: str,
        body: bytes,
        *,
        lifetime: float,
        group: str = "",
        expected: Expected | None = None,
        payload_kind: str = "",
        inquiry: Inquiry | None = None,
        plant: str = "",
    ) -> None:
        """Give a message to Flower, which keeps it for an absent node as long as it lives (in seconds)."""
        sent = Sent(node, kind, self._clock() + lifetime, expected, payload_kind, len(body), inquiry, plant)
        if self._content is None or self._content[0] is not body:
            self._content = (body, content_with(body))  # many plants get the same bytes: wrap them once
        message = Message(self._content[1], dst_node_id=node, message_type=kind, ttl=lifetime, group_id=group)
        identities = list(self._grid.push_messages([message]))
        if identities and identities[0]:
            self._under_way[identities[0]] = sent
        else:
            self._failed.append(Delivery(sent, failure="Flower did not take the message"))

    def receive(self) -> Iterator[Delivery]:
        """One look at everything that is under way."""
        while self._failed:
            yield self._failed.popleft()
        waiting = iter(list(self._under_way))
        while batch := list(itertools.islice(waiting, BATCH)):
            for message in self._grid.pull_messages(batch):
                identity = message.metadata.reply_to_message_id
                self._excused.discard(identity)
                sent = self._under_way.pop(identity, None)
                if sent is not None:
                    yield _delivery(sent, message)
        now = self._clock()
        for identity in [one for one, sent in self._under_way.items() if sent.expires < now]:
            self._excused.discard(identity)
            yield Delivery(self._under_way.pop(identity), failure="no answer came in time")


def _delivery(sent: Sent, message: Message) -> Delivery:
    if message.has_error():
        return Delivery(sent, failure=failure_of(message))
    try:
        return Delivery(sent, body=take_body(message))
    except UpdateFormatError as error:
        return Delivery(sent, failure=str(error))
