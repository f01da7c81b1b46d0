"""Fleet node: the plant's loop on Flower's Fleet API, ask for a message, let the plant's handler work, answer.

Flower's own SuperNode fetches an app bundle from the server and runs what is in it, in a new process for
every message. A plant must not run code that came over the wire, and a process per message costs seconds.
So this loop speaks the same protocol, with Flower's own encoders for messages and objects, but never asks
for the bundle and calls the handler that is installed here in this process. ``fleet_connection`` has the
connection.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common import Message
from flwr.common.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectIdNotPreregisteredError,
    ObjectUnavailableError,
    pull_and_inflate_object_from_tree,
    push_objects,
)

from fedclient.node.channels import KEEPALIVE
from fedclient.node.flower.envelope import Handler, reply_to
from fedclient.node.flower.fleet_connection import (
    FleetConnection,
    LinkLostError,
    NotRecognisedError,
    RefusedError,
    RunOverError,
)
from fedclient.node.flower.message_journal import MessageJournal
from fedspect.errors import FederationError, UpdateFormatError

__all__ = ["FleetNode", "LinkLostError", "NotRecognisedError", "Pace"]

OnState = Callable[[str, str], None]
T = TypeVar("T")

LARGEST_TASK = 256 << 20
"""Bytes of all objects of one message."""
MOST_OBJECTS = 10_000
UPLOAD_TIMEOUT = 120.0
MOST_REFUSALS = 10
"""Of one call, in half a minute and more, until its message is given up."""


@dataclass(frozen=True)
class Pace:
    """How often the node asks, in seconds."""

    busy: float = 0.1
    """Between two questions while rounds go on."""
    idle: float = 1.0
    """Between two questions when nothing came for ``idle_after``: two hundred plants ask one server."""
    idle_after: float = 60.0
    first_retry: float = 0.5
    longest_retry: float = 5.0
    keepalive: float = KEEPALIVE
    """A connection that is silent for so long is asked whether it lives, and given up twice as much later."""


@dataclass
class FleetNode:
    """One device on the Fleet API. ``run`` stays until it is told to stop.

    ``on_state`` hears "joined", "working", "idle", "dropped" and "lost", each with a line for people.
    """

    addresses: Sequence[str]
    """host:port, tried in turn."""
    authority: bytes
    """The certificate (PEM) that the server's must be of."""
    key: ec.EllipticCurvePrivateKey
    handler: Handler
    journal: MessageJournal
    """Where a message is kept until it is answered."""
    clock_offset: float = 0.0
    proxy: str = "none"
    """As in ``plant.toml``."""
    node_id: int | None = None
    on_state: OnState = lambda state, detail: None
    pace: Pace = field(default_factory=Pace)

    def run(self, stop: threading.Event) -> None:
        """Answer messages until ``stop`` is set; the link may be lost and found again any number of times.

        Raises:
            NotRecognisedError: the server does not know the key; whoever enrolled the device can tell why.

        """
        delay = self.pace.first_retry
        attempt = 0
        while not stop.is_set():
            address = self.addresses[attempt % len(self.addresses)]
            attempt += 1
            link = FleetConnection(
                address,
                self.authority,
                self.key,
                node_id=self.node_id,
                clock_offset=self.clock_offset,
                proxy=self.proxy,
                keepalive=self.pace.keepalive,
            )
            try:
                with link:
                    self.node_id = link.node_id
                    self.on_state("joined", f"at {address}")
                    delay = self.pace.first_retry
                    self._answer_messages(link, stop)
            except _StoppedError:
                return
            except LinkLostError as error:
                self.on_state("lost", str(error))
                stop.wait(delay * random.uniform(0.8, 1.2))
                delay = min(2 * delay, self.pace.longest_retry)

    def _answer_messages(self, link: FleetConnection, stop: threading.Event) -> None:
        left = self.journal.left()
        last_work = time.monotonic()
        while not stop.is_set():
            taken = left if left is not None else self._next(link)
            left = None
            if taken is None:
                quiet = time.monotonic() - last_work > self.pace.idle_after
                stop.wait(self.pace.idle if quiet else self.pace.busy)
                continue
            try:
                self._answer(link, taken, stop)
            except (RunOverError, UpdateFormatError) as error:
                self.on_state("dropped", str(error))
            self.journal.done()
            last_work = time.monotonic()
            self.on_state("idle", "")

    def _next(self, link: FleetConnection) -> PullMessagesResponse | None:
        response: PullMessagesResponse = link.call("PullMessages", PullMessagesRequest(node=link.proto))
        if not response.messages_list:
            return None
        self.journal.offered(response)
        return response

    def _answer(
        self, link: FleetConnection, taken: PullMessagesResponse | Message, stop: threading.Event
    ) -> None:
        if isinstance(taken, Message):
            message = taken
            if message.metadata.reply_to_message_id:
                self.on_state("working", "on handing in an answer that an earlier start left")
                self._patiently(stop, lambda: _send(link, message, 0.0))
                return
        else:
            header, tree = message_from_proto(taken.messages_list[0]), taken.message_object_trees[0]
            message = self._patiently(stop, lambda: _fetch(link, header, tree, self.journal))
        self.on_state("working", "on what headquarters asks")
        started = time.monotonic()
        reply = reply_to(message, self.handler)
        _date(reply, message, self.clock_offset)
        if stop.is_set():
            raise _StoppedError("told to stop while working")
        seconds = time.monotonic() - started
        self.journal.answered(reply)
        self._patiently(stop, lambda: _send(link, reply, seconds))

    def _patiently(self, stop: threading.Event, action: Callable[[], T]) -> T:
        """Do something again and again while the link is cut: a message in hand, or its answer, is not
        given up, unless the server is there and refuses it again and again.
        """
        delay = self.pace.first_retry
        refusals = 0
        while True:
            try:
                return action()
            except LinkLostError as error:
                refusals += isinstance(error, RefusedError)
                if refusals == MOST_REFUSALS:
                    raise RunOverError("the server will not take this message", seen=error.seen) from error
                self.on_state("lost", str(error))
            if stop.wait(delay * random.uniform(0.8, 1.2)):
                raise _StoppedError("told to stop while the link was cut")
            delay = min(2 * delay, self.pace.longest_retry)


class _StoppedError(FederationError):
    """The node was told to stop."""


def _fetch(link: FleetConnection, header: Message, tree: ObjectTree, journal: MessageJournal) -> Message:
    """The whole message; its parts are counted before and while they come. The server may forget them as soon
    as they are on disk here.
    """
    if sum(1 for _ in iterate_object_tree(tree)) > MOST_OBJECTS:
        raise UpdateFormatError("a message has too many parts", accepted=f"at most {MOST_OBJECTS}")
    received = 0
    lock = threading.Lock()

    def pull_object(request: Any) -> Any:
        nonlocal received
        answer = link.call("PullObject", request)
        with lock:
            received += len(answer.object_content)
            if received > LARGEST_TASK:
                raise UpdateFormatError("a message is too large", accepted=f"at most {LARGEST_TASK} bytes")
        return answer

    confirmation: list[Any] = []

    def confirm(request: Any) -> ConfirmMessageReceivedResponse:
        confirmation.append(request)
        return ConfirmMessageReceivedResponse()

    run_id = header.metadata.run_id
    try:
        message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(pull_object, link.proto, run_id),
            make_confirm_message_received_fn_protobuf(confirm, link.proto, run_id),
            return_type=Message,
            max_time=600.0,
            initial_backoff=0.02,
            backoff_cap=0.5,
        )
    except (ObjectUnavailableError, ObjectIdNotPreregisteredError) as error:
        raise RunOverError("a message's content is gone", seen=str(error)) from error
    except (ValueError, TypeError, KeyError) as error:
        raise UpdateFormatError("a message's content cannot be read", seen=str(error)) from error
    message.metadata.__dict__["_message_id"] = tree.object_id
    journal.received(message)
    for request in confirmation:
        link.call("ConfirmMessageReceived", request)
    return message


def _date(reply: Message, message: Message, clock_offset: float) -> None:
    """Date the reply by headquarters' clock: to a device whose own is fast, every task has expired already."""
    reply.metadata.created_at += clock_offset
    reply.metadata.ttl = message.metadata.created_at + message.metadata.ttl - reply.metadata.created_at


def _send(link: FleetConnection, reply: Message, seconds: float) -> None:
    """Hand the reply in: its header and the names of its parts, then the parts that the server lacks."""
    reply.metadata.__dict__["_message_id"] = reply.object_id

    def push_object(request: Any) -> Any:
        return link.call("PushObject", request, timeout=UPLOAD_TIMEOUT)

    with no_object_id_recompute():
        request = PushMessagesRequest(
            node=link.proto,
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(reply)],
            clientapp_runtime_list=[seconds],
        )
        wanted = set(link.call("PushMessages", request).objects_to_push)
        push = make_push_object_fn_protobuf(push_object, link.proto, reply.metadata.run_id)
        try:
            push_objects(get_all_nested_objects(reply), push, object_ids_to_push=wanted)
        except ObjectIdNotPreregisteredError as error:
            raise RunOverError("the server does not want this reply any more", seen=str(error)) from error
