"""Fleet node: the plant's loop on Flower's Fleet API, ask for a message, let the plant's handler work, answer.

Flower's own SuperNode fetches an app bundle from the server and runs what is in it, in a new process for
every message. A plant must not run code that came over the wire, and a process per message costs seconds.
So this loop never asks for the bundle and calls the handler that is installed here in this process. A message and an
answer are one call each, and the server, which knows how many nodes ask and how much goes on, says when to ask again
(``fedserver.flower.message_servicers``). ``fleet_connection`` has the connection.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common import Error, Message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import Message as ProtoMessage

from fedclient.node.channels import KEEPALIVE
from fedclient.node.flower.envelope import Handler, reply_to
from fedclient.node.flower.fleet_connection import (
    FleetConnection,
    LinkLostError,
    NotRecognisedError,
    RefusedError,
    RunOverError,
)
from fedclient.node.flower.message_store import Left, MessageStore
from fedspect.errors import FederationError, UpdateFormatError
from fedspect.protocol.limits import LARGEST_FLEET_MESSAGE

__all__ = ["FleetNode", "LinkLostError", "NotRecognisedError", "Pace"]

OnState = Callable[[str, str], None]
T = TypeVar("T")

CALL_TIMEOUT, LONGEST_TIMEOUT = 15.0, 600.0
"""Seconds for a message to come; doubled for a line on which one did not."""
SLOWEST_LINE = 64 << 10
"""Bytes a second; an answer has so much time to be handed in, and two minutes."""
HEADER = 64 << 10
"""Bytes of a call beside its message, at most."""
MOST_REFUSALS = 10
"""Of one call, in half a minute and more, until its message is given up."""


@dataclass(frozen=True)
class Pace:
    """How often the node asks, in seconds."""

    ask: float = 1.0
    """Between two questions where the server does not say when to ask again."""
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
    store: MessageStore
    """Where a message is kept until it is answered."""
    clock_offset: float = 0.0
    proxy: str = "none"
    """As in ``plant.toml``."""
    node_id: int | None = None
    on_state: OnState = lambda state, detail: None
    pace: Pace = field(default_factory=Pace)
    _settled: list[str] = field(default_factory=list, init=False)
    """Messages that will not be answered, which the server is told with the next question."""
    _pull_timeout: float = field(default=CALL_TIMEOUT, init=False)

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
        left = self.store.left()
        if left is not None:
            self._do(partial(self._finish, link, left, stop), left.message.metadata.message_id)
        while not stop.is_set():
            response = self._next(link)
            if response.messages_list:
                proto = response.messages_list[0]
                self._do(partial(self._answer, link, proto, stop), proto.metadata.message_id)
            else:
                asked = response.reconnect.reconnect / 1000 or self.pace.ask
                stop.wait(asked * random.uniform(0.8, 1.2))

    def _do(self, work: Callable[[], None], message_id: str) -> None:
        """See to one message; one that nobody wants answered, or that cannot be read, is settled."""
        try:
            work()
        except (RunOverError, UpdateFormatError) as error:
            self._settled.append(message_id)
            self.on_state("dropped", str(error))
        self.store.done()
        self.on_state("idle", "")

    def _next(self, link: FleetConnection) -> PullMessagesResponse:
        request = PullMessagesRequest(node=link.proto, message_ids=self._settled)
        try:
            response: PullMessagesResponse = link.call("PullMessages", request, timeout=self._pull_timeout)
        except LinkLostError:
            self._pull_timeout = min(2 * self._pull_timeout, LONGEST_TIMEOUT)
            raise
        self._settled.clear()
        return response

    def _finish(self, link: FleetConnection, left: Left, stop: threading.Event) -> None:
        """Go on with what an earlier node left."""
        if left.message.metadata.reply_to_message_id:
            self.on_state("working", "on handing in an answer that an earlier start left")
            reply = left.message
        elif left.given_up:
            reason = "the plant's node did not survive this message"
            reply = Message(Error(ErrorCode.CLIENT_APP_CRASHED, reason), reply_to=left.message)
            self._name(reply, left.message)
        else:
            self._work(link, left.message, stop)
            return
        self._patiently(stop, lambda: _send(link, reply, 0.0))

    def _answer(self, link: FleetConnection, proto: ProtoMessage, stop: threading.Event) -> None:
        try:
            message = message_from_proto(proto)
        except (ValueError, TypeError, KeyError) as error:
            raise UpdateFormatError("a message's content cannot be read", seen=str(error)) from error
        self.store.keep(message)
        self._work(link, message, stop)

    def _work(self, link: FleetConnection, message: Message, stop: threading.Event) -> None:
        self.on_state("working", "on what headquarters asks")
        started = time.monotonic()
        reply = reply_to(message, self.handler)
        size = message_to_proto(reply).ByteSize()
        if size > LARGEST_FLEET_MESSAGE - HEADER:
            reason = f"its answer of {size} bytes is larger than headquarters takes"
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
        self._name(reply, message)
        if stop.is_set():
            raise _StoppedError("told to stop while working")
        seconds = time.monotonic() - started
        self.store.keep(reply)
        self._patiently(stop, lambda: _send(link, reply, seconds))

    def _name(self, reply: Message, message: Message) -> None:
        """Give a reply its id, and headquarters' time: to a device whose clock is fast, every task has expired."""
        reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex
        reply.metadata.created_at += self.clock_offset
        reply.metadata.ttl = message.metadata.created_at + message.metadata.ttl - reply.metadata.created_at

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


def _send(link: FleetConnection, reply: Message, seconds: float) -> None:
    """Hand the reply in."""
    request = PushMessagesRequest(
        node=link.proto, messages_list=[message_to_proto(reply)], clientapp_runtime_list=[seconds]
    )
    link.call("PushMessages", request, timeout=120.0 + request.ByteSize() / SLOWEST_LINE)
