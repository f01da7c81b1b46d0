"""Message dispatcher: which node owes a reply to what, and what becomes of each message.

A message whose reply does not come within its lifetime becomes a failure, like one whose node died or could not be
reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fedserver.rounds.inquiry import Inquiry
from fedserver.rounds.transport import Transport
from fedspect.protocol.messages import TRAIN
from fedspect.update.checks import Expected

LONGEST_REASON = 500  # characters


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
    """What became of a message: the reply's body, or why there is none."""

    sent: Sent
    body: bytes = b""
    failure: str | None = None


class MessageDispatcher:
    """Sends messages over one transport and matches replies with them."""

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._clock = clock
        self._under_way: dict[str, Sent] = {}
        self._failed: deque[Delivery] = deque()
        self._excused: set[str] = set()

    def nodes(self) -> set[int]:
        """The nodes that are online."""
        return self._transport.nodes()

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
        nodes: Sequence[int],
        kind: str,
        body: bytes,
        *,
        lifetime: float,
        group: str = "",
        expected: Sequence[Expected] = (),
        payload_kind: str = "",
        inquiry: Inquiry | None = None,
        plants: Sequence[str] = (),
    ) -> None:
        """Send each node a message that it gets, if it is absent, as long as that lives (in seconds).

        ``expected`` is of tasks and ``plants`` of questions outside of rounds, both in the order of the nodes.
        """
        identities = self._transport.send(nodes, kind, body, lifetime=lifetime, group=group)
        expires = self._clock() + lifetime
        for place, (node, identity) in enumerate(zip(nodes, identities, strict=True)):
            answer = expected[place] if expected else None
            plant = plants[place] if plants else ""
            sent = Sent(node, kind, expires, answer, payload_kind, len(body), inquiry, plant)
            if identity is None:
                self._failed.append(Delivery(sent, failure="the message was not taken"))
            else:
                self._under_way[identity] = sent

    def receive(self) -> Iterator[Delivery]:
        """One look at everything that is under way."""
        while self._failed:
            yield self._failed.popleft()
        for reply in self._transport.receive(list(self._under_way)):
            self._excused.discard(reply.message)
            sent = self._under_way.pop(reply.message, None)
            if sent is not None:
                yield Delivery(sent, reply.body, _first_line(reply.failure))
        now = self._clock()
        for identity in [one for one, sent in self._under_way.items() if sent.expires < now]:
            self._excused.discard(identity)
            yield Delivery(self._under_way.pop(identity), failure="no answer came in time")


def _first_line(reason: str | None) -> str | None:
    """What is worth showing of a reason: some come with a whole traceback."""
    return None if reason is None else next(iter(reason.splitlines()), "no reason given")[:LONGEST_REASON]
