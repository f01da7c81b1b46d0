"""Fleet API connection of one device: signed calls with deadlines, and heartbeats beside them.

Flower's SuperLink knows a device by three headers. Flower's own connection has no deadlines, so a cut cable hangs
it, signs with the device's own clock, which must not be five seconds fast, and beats every twenty-five seconds; here
each is otherwise.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import threading
import time
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from fedclient.node.channels import KEEPALIVE, secure_channel, way
from fedclient.node.enrolment.trust import check_server
from fedspect.errors import ConnectionLostError, EnrolmentError, FederationError
from fedspect.protocol.limits import LARGEST_FLEET_MESSAGE
from fedspect.protocol.names import split_address

HEARTBEAT_INTERVAL = 10.0
"""Seconds; the least that the Fleet API accepts. A device is offline after twice that."""
BEAT = 7.5
"""Seconds without another call after which the node sends a heartbeat."""
CALL_TIMEOUT = 15.0


class NotRecognisedError(FederationError):
    """The server does not know this device's key (yet, any more), or refuses the time that it signed."""


class LinkLostError(FederationError):
    """The server cannot be reached at the moment."""


class RefusedError(LinkLostError):
    """The server is there and does not take this call; asking again may help, or never will."""


class RunOverError(FederationError):
    """The run that a message belongs to is not running any more."""


class _StillActiveError(FederationError):
    """The server holds an earlier activation of this device for online."""


OF_ONE_MESSAGE = ("PushMessages",)
"""Calls about a message that the node has in hand, which can be over while the link is well."""

FULL_PACKETS = (
    "if this comes again while the plant is online, packets of full size are dropped on the way, as in a VPN: set a"
    " smaller MTU on this device (ip link set dev eth0 mtu 1400)"
)

NOT_TAKEN = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
)


class FleetConnection:
    """A device that the server holds for online while the ``with`` block runs.

    ``node_id`` is the number that the server gave this device last time, if it is remembered: with it a
    device that was killed a moment ago can end its old self at once. ``clock_offset`` is what must be added
    to this device's clock to get headquarters', in seconds.
    """

    def __init__(
        self,
        address: str,
        authority: bytes,
        key: ec.EllipticCurvePrivateKey,
        *,
        node_id: int | None = None,
        clock_offset: float = 0.0,
        proxy: str = "none",
        keepalive: float = KEEPALIVE,
    ) -> None:
        self.address = address
        self._authority = authority
        self._proxy = proxy
        self.node_id = node_id
        self._key = key
        self._public_key = public_key_to_bytes(key.public_key())
        self._clock_offset = dt.timedelta(seconds=clock_offset)
        self._version = RuntimeVersionMetadata.from_local_component("SuperNode")
        self._channel = secure_channel(
            split_address(address),
            authority,
            largest=LARGEST_FLEET_MESSAGE,
            proxy=proxy,
            keepalive=keepalive,
        )
        self._stub = FleetStub(self._channel)
        self._closed = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._refusal = ""
        self._alive_at = time.monotonic()

    def __enter__(self) -> FleetConnection:
        try:
            self._activate()
        except LinkLostError as error:
            self._channel.close()
            raise self._explained(error) from error
        except BaseException:
            self._channel.close()
            raise
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._beating.join()
        with contextlib.suppress(FederationError):  # otherwise the server misses the heartbeats
            self.call("DeactivateNode", DeactivateNodeRequest(node_id=self.proto.node_id), timeout=2.0)
        self._channel.close()

    @property
    def proto(self) -> Node:
        """The device in Flower's words."""
        return Node(node_id=self.node_id or 0)

    def call(self, method: str, request: Any, *, timeout: float = CALL_TIMEOUT) -> Any:
        """One signed call of the Fleet API.

        Raises:
            LinkLostError, RefusedError, NotRecognisedError, RunOverError: by what went wrong.

        """
        if self._refusal:
            raise NotRecognisedError(self._refusal)
        try:
            answer = getattr(self._stub, method)(request, timeout=timeout, metadata=self._metadata())
        except grpc.RpcError as error:
            raise self._meaning(error, method) from error
        if method == "PullMessages":
            self._alive_at = time.monotonic()
        return answer

    def _metadata(self) -> list[tuple[str, str | bytes]]:
        timestamp = (dt.datetime.now(dt.timezone.utc) + self._clock_offset).isoformat()
        return [
            (PUBLIC_KEY_HEADER, self._public_key),
            (TIMESTAMP_HEADER, timestamp),
            (SIGNATURE_HEADER, sign_message(self._key, timestamp.encode("ascii"))),
            *self._version.append_to_grpc_metadata(()),
        ]

    def _activate(self) -> None:
        request = ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=HEARTBEAT_INTERVAL)
        try:
            answer = self.call("ActivateNode", request)
        except _StillActiveError as error:
            if self.node_id is None:
                raise LinkLostError(
                    "the server holds an earlier start of this plant for online still",
                    remedy=f"nothing: it notices within {2 * HEARTBEAT_INTERVAL:.0f} seconds",
                ) from error
            # The earlier start's place is taken as it is: were it given up first, the server would give up the
            # message that this node has in hand.
            heartbeat = SendNodeHeartbeatRequest(node=self.proto, heartbeat_interval=HEARTBEAT_INTERVAL)
            if not self.call("SendNodeHeartbeat", heartbeat).success:
                raise LinkLostError("the server held an earlier start of this plant for online") from error
            return
        self.node_id = int(answer.node_id)

    def _explained(self, error: LinkLostError) -> LinkLostError:
        """Why there is no connection: a handshake of our own tells more than gRPC, which names no certificate."""
        try:
            check_server(split_address(self.address), self._authority, proxy=self._proxy)
        except EnrolmentError as found:
            return LinkLostError(found.what, seen=found.seen, remedy=found.remedy)
        except ConnectionLostError as found:
            return LinkLostError(error.what, seen=found.seen)
        return error

    def _beat(self) -> None:
        """Never leave the server without a sign of life for longer than a beat; a question for messages is one."""
        while not self._closed.wait(self._alive_at + BEAT * random.uniform(0.9, 1.1) - time.monotonic()):
            if time.monotonic() - self._alive_at < 0.9 * BEAT:
                continue
            self._alive_at = time.monotonic()
            request = SendNodeHeartbeatRequest(node=self.proto, heartbeat_interval=HEARTBEAT_INTERVAL)
            try:
                if not self.call("SendNodeHeartbeat", request, timeout=5.0).success:
                    self._refusal = "the server does not know this device any more"
            except NotRecognisedError as error:
                self._refusal = error.what
            except FederationError:
                continue  # whoever makes the other calls notices a lost link

    def _meaning(self, error: grpc.RpcError, method: str) -> FederationError:
        """What a failed call means for the loop."""
        code, details = error.code(), str(error.details() or "")[:500]
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return NotRecognisedError("the server does not recognise this device", seen=details)
        if code == grpc.StatusCode.PERMISSION_DENIED:
            return RunOverError("the run is over", seen=details)
        if code == grpc.StatusCode.FAILED_PRECONDITION and method == "ActivateNode":
            if "could not be activated" in details:
                return _StillActiveError(details)
            return NotRecognisedError("the server does not know this device's key", seen=details)
        if code == grpc.StatusCode.FAILED_PRECONDITION:
            # What the server could not find or would not take of one message.
            return RunOverError("the server refused a part of a message", seen=details)
        if code == grpc.StatusCode.UNKNOWN and method in OF_ONE_MESSAGE and "Exception calling" in details:
            # A server that was started again fails on a message of a run that it has never heard of.
            return RunOverError("the server knows nothing of this message any more", seen=details)
        if code in NOT_TAKEN or (code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than" in details):
            return RefusedError(
                f"the server at {self.address} does not take a call", seen=f"{code.name.lower()}: {details}"
            )
        # gRPC tells how it got there; what helps is where it ended.
        reason = details.rsplit(": ", 1)[-1].lower() if "failed to connect" in details else details
        told = ", ".join(filter(None, [f"{code.name.lower()}: {reason}", way(self.address, self._proxy)]))
        return LinkLostError(
            f"the server at {self.address} does not answer",
            seen=told,
            remedy=FULL_PACKETS if method in ("PushObject", "PullObject") else None,
        )
