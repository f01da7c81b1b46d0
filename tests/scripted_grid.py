"""A grid and a clock that a test directs: who is online, whose answer is held back, and what time it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from flwr.common import Context, Message

from fedclient.node.flower.clientapp import WorkerPort, build_client_app
from fedsim.backends.local import LocalGrid


class Clock:
    """Time that passes only when it is asked for, ten milliseconds at a time, or when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


class ScriptedGrid(LocalGrid):
    """``LocalGrid`` whose nodes come and go, and whose answers can be held back; nodes count from 1."""

    def __init__(self, workers: Iterable[WorkerPort]) -> None:
        self.workers = list(workers)
        self.notices: list[str] = []
        app = build_client_app(self._worker, on_notice=self.notices.append)
        super().__init__(app, [{} for _ in self.workers])
        self.offline: set[int] = set()
        self.held: set[int] = set()
        self.altered: dict[int, Callable[[Message], Message]] = {}
        self.order: Callable[[list[str]], list[str]] = list

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in super().get_node_ids() if node not in self.offline]

    def forget(self, node: int) -> None:
        """A node was killed: what it was given is never answered."""
        gone = [i for i, message in self._waiting.items() if message.metadata.dst_node_id == node]
        for identity in gone:
            del self._waiting[identity]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        silent = self.offline | self.held
        waiting = {i: m.metadata for i, m in self._waiting.items()}
        able = [
            i
            for i in message_ids
            if i in waiting and not (waiting[i].dst_node_id in silent and waiting[i].message_type == "train")
        ]
        replies = list(super().pull_messages(self.order(able)))
        return [self.altered.get(m.metadata.src_node_id, _as_it_is)(m) for m in replies]

    def _worker(self, context: Context) -> WorkerPort:
        return self.workers[context.node_id - 1]


def _as_it_is(message: Message) -> Message:
    return message


def by_name(results: Iterable[object]) -> Mapping[str, object]:
    """Plants' results by name."""
    return {result.plant: result for result in results}  # type: ignore[attr-defined]
