"""A transport and a clock that a test directs: who is online, whose answer is held back, and what time it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedclient.node.message_handler import MessageHandler, WorkerPort
from fedserver.rounds.transport import Reply
from fedsim.backends.local import LocalTransport
from fedspect.protocol.messages import TRAIN


class Clock:
    """Time that passes only when it is asked for, ten milliseconds at a time, or when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


@dataclass(frozen=True)
class Sent:
    """A message that was handed over."""

    node: int
    kind: str
    group: str


class ScriptedTransport(LocalTransport):
    """``LocalTransport`` whose nodes come and go, and whose answers can be held back; nodes count from 1."""

    def __init__(self, workers: Iterable[WorkerPort]) -> None:
        self.workers = list(workers)
        self.notices: list[str] = []
        super().__init__([self._handler(number) for number in range(len(self.workers))])
        self.offline: set[int] = set()
        self.held: set[int] = set()
        self.altered: dict[int, Callable[[Sent, Reply], Reply]] = {}
        """By node: is given a message and its reply."""
        self.order: Callable[[list[str]], list[str]] = list
        self.sent: dict[str, Sent] = {}

    def nodes(self) -> set[int]:
        return super().nodes() - self.offline

    def send(
        self, nodes: Sequence[int], kind: str, body: bytes, *, lifetime: float, group: str
    ) -> Sequence[str | None]:
        identities = super().send(nodes, kind, body, lifetime=lifetime, group=group)
        for node, identity in zip(nodes, identities):
            assert identity is not None
            self.sent[identity] = Sent(node, kind, group)
        return identities

    def forget(self, node: int) -> None:
        """A node was killed: what it was given is never answered."""
        for identity in [one for one in self._waiting if self.sent[one].node == node]:
            del self._waiting[identity]

    def receive(self, messages: Sequence[str]) -> Iterable[Reply]:
        silent = self.offline | self.held
        waiting = [one for one in messages if one in self._waiting]
        able = [i for i in waiting if not (self.sent[i].node in silent and self.sent[i].kind == TRAIN)]
        replies = list(super().receive(self.order(able)))
        return [self._altered(reply) for reply in replies]

    def _altered(self, reply: Reply) -> Reply:
        sent = self.sent[reply.message]
        return self.altered[sent.node](sent, reply) if sent.node in self.altered else reply

    def _handler(self, number: int) -> MessageHandler:
        return MessageHandler(lambda: self.workers[number], on_notice=self.notices.append)


def failing(reason: str) -> Callable[[Sent, Reply], Reply]:
    """A plant that describes itself and cannot train."""
    return lambda sent, reply: Reply(reply.message, failure=reason) if sent.kind == TRAIN else reply


def by_name(results: Iterable[object]) -> Mapping[str, object]:
    """Plants' results by name."""
    return {result.plant: result for result in results}  # type: ignore[attr-defined]
