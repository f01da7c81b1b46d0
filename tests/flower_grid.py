"""One of Flower's Grids in this process, for what has to be tried with Flower's own messages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional

from flwr.common import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.common.typing import Run
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.server import Grid

from fedclient.node.flower.envelope import Handler, reply_to


class InProcessGrid(Grid):
    """Nodes 1 to ``len(handlers)``; every message passes through Flower's serialisation both ways."""

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self.handlers = handlers
        self.altered: Callable[[Message], Message] = lambda message: message
        self._ids = itertools.count(1)
        self._waiting: dict[str, Message] = {}
        self._run = Run.create_empty(run_id=1)

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(self, *arguments: Any, **more: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return range(1, len(self.handlers) + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            identity = f"message-{next(self._ids)}"
            message.metadata.__dict__.update(_run_id=1, _src_node_id=1, _message_id=identity)
            self._waiting[identity] = _through_the_wire(message)
            ids.append(identity)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        waiting = [self._waiting.pop(one) for one in list(message_ids) if one in self._waiting]
        return [
            self.altered(_through_the_wire(reply_to(each, self.handlers[each.metadata.dst_node_id - 1])))
            for each in waiting
        ]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: Optional[float] = None
    ) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))


def _through_the_wire(message: Message) -> Message:
    return message_from_proto(ProtoMessage.FromString(message_to_proto(message).SerializeToString()))
