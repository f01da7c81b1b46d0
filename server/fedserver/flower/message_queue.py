"""Message queue of the SuperLink: Flower's in-memory state, in which a message is whole and stays until it is answered.

Flower cuts a message into objects that are stored, asked for and confirmed one by one (some twenty-five calls and as
many database sessions a plant and round), and hands a message out once: a node that dies before it has written the
message down loses it. Here a message travels in one call, and a node that asks again without having answered gets it
again. Nothing has to last: a SuperLink is started anew with an empty state in any case.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from flwr.common import Message
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.server.superlink.linkstate.utils import (
    create_message_error_unavailable_ins_message,
    create_message_error_unavailable_res_message,
)
from flwr.supercore.constant import NodeStatus

BUSY_FOR = 60.0
"""Seconds after a message was stored in which nodes ask often."""
BUSY_SHARE, IDLE_SHARE = 0.02, 0.05
"""Seconds between two questions of one node for each node that is online: 50 or 20 questions a second in all."""
FASTEST, SLOWEST = 0.1, 5.5
"""Seconds; the slowest question still comes in time to be the node's heartbeat."""
IDLE = 1.0


class MessageQueue(InMemoryLinkState):
    """One SuperLink's nodes, runs and messages. Its lock is Flower's own, which may be taken again by its holder."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queues: dict[int, dict[str, None]] = {}
        self._stored_at = -BUSY_FOR
        self._counted = (0.0, 0)

    # -- tasks for nodes -----------------------------------------------------------------------------------

    def store_message_ins(self, message: Message) -> str | None:
        """Queue a message for its node."""
        with self.lock:
            identity = super().store_message_ins(message)
            if identity is not None:
                self._queues.setdefault(message.metadata.dst_node_id, {})[identity] = None
                self._stored_at = time.monotonic()
            return identity

    def next_message(self, node_id: int, settled: Iterable[str]) -> Message | None:
        """The oldest message that the node has neither answered nor ``settled`` otherwise."""
        with self.lock:
            queue = self._queues.get(node_id, {})
            for identity in settled:
                queue.pop(identity, None)
            for identity in list(queue):
                message = self.message_ins_store.get(identity)
                if message is not None and not _expired(message):
                    return message
                del queue[identity]
            return None

    def store_message_res(self, message: Message) -> str | None:
        """Keep a node's reply; one that is handed in again, because the node did not hear of it, counts once."""
        asked = message.metadata.reply_to_message_id
        with self.lock:
            known = self.message_ins_id_to_message_res_id.get(asked)
            if known is not None:
                return known
            identity = super().store_message_res(message)
            if identity is not None:
                self._queues.get(message.metadata.src_node_id, {}).pop(asked, None)
            return identity

    def delete_messages(self, message_ins_ids: set[str]) -> None:
        """Forget messages, their replies and their places in the queues."""
        with self.lock:
            for identity in message_ins_ids:
                message = self.message_ins_store.get(identity)
                if message is not None:
                    self._queues.get(message.metadata.dst_node_id, {}).pop(identity, None)
            super().delete_messages(message_ins_ids)

    # -- replies for the ServerApp ---------------------------------------------------------------------------

    def replies(self, message_ids: Sequence[str], limit: int) -> list[Message]:
        """The replies to at most ``limit`` of these messages, or errors where none will come; each is given once.

        A reply counts although its node has gone since; Flower would call it lost.
        """
        found: list[Message] = []
        with self.lock:
            for identity in message_ids:
                reply = self._reply(identity)
                if reply is not None:
                    found.append(reply)
                    if len(found) == limit:
                        break
            self.delete_messages({reply.metadata.reply_to_message_id for reply in found})
        return found

    def _reply(self, identity: str) -> Message | None:
        """A message's reply, or the error that there will be none."""
        answered = self.message_ins_id_to_message_res_id.get(identity)
        if answered is not None:
            return self.message_res_store[answered]
        message = self.message_ins_store.get(identity)
        if message is None or _expired(message):
            return create_message_error_unavailable_ins_message(identity)
        if not self._reachable(message.metadata.dst_node_id):
            return create_message_error_unavailable_res_message(message.metadata, "node_unavail")
        return None

    def _reachable(self, node_id: int) -> bool:
        node = self.nodes.get(node_id)
        return node is not None and node.online_until is not None and node.online_until >= time.time()

    # -- nodes -----------------------------------------------------------------------------------------------

    def delete_node(self, owner_aid: str, node_id: int) -> None:
        """Let go of a node; its key may come back under another number. Flower fails for one that never connected."""
        with self.lock:
            node = self.nodes.get(node_id)
            if node is not None and node.online_until is None:
                node.online_until = 0.0
            super().delete_node(owner_aid, node_id)
            if node is not None:
                self.node_public_key_to_node_id.pop(node.public_key, None)
            self._queues.pop(node_id, None)

    def heard_of(self, node_id: int) -> None:
        """A question is a sign of life; it wakes no node that gave itself up."""
        node = self.nodes.get(node_id)
        if node is not None and node.status == NodeStatus.ONLINE:
            self.acknowledge_node_heartbeat(node_id, node.heartbeat_interval)

    def ask_again_in(self) -> float:
        """Seconds after which a node should ask again: the more there are and the less goes on, the later."""
        now = time.monotonic()
        counted_at, online = self._counted
        if now - counted_at > 1.0:
            online = sum(node.status == NodeStatus.ONLINE for node in list(self.nodes.values()))
            self._counted = (now, online)
        if now - self._stored_at < BUSY_FOR:
            return min(max(FASTEST, BUSY_SHARE * online), SLOWEST)
        return min(max(IDLE, IDLE_SHARE * online), SLOWEST)


def _expired(message: Message) -> bool:
    return message.metadata.created_at + message.metadata.ttl <= time.time()
