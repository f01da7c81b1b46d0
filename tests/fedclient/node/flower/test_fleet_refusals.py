"""A server that is there and does not take a call: a node gives the message up, and not at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common import Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.proto.node_pb2 import Node

from fedclient.node.flower.envelope import content_with
from fedclient.node.flower.fleet_connection import FleetConnection, LinkLostError, RefusedError, RunOverError
from fedclient.node.flower.fleet_node import MOST_REFUSALS, FleetNode, Pace
from fedclient.node.flower.message_store import MOST_STARTS, MessageStore
from fedclient.node.message_handler import Answer
from fedserver.enrolment.authority import Authority
from fedspect.errors import FederationError, UpdateFormatError
from fedspect.protocol.limits import LARGEST_FLEET_MESSAGE

LARGEST = 1 << 20
KEY = ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def link(tmp_path: Path) -> Iterator[FleetConnection]:
    """A link to a server that knows one method and takes no large message."""
    authority = Authority(tmp_path)
    authority.create("a server")
    authority.issue_server_certificate(["localhost"])
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", LARGEST)])
    push = grpc.unary_unary_rpc_method_handler(
        lambda request, context: PushObjectResponse(stored=True),
        request_deserializer=PushObjectRequest.FromString,
        response_serializer=PushObjectResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("flwr.proto.Fleet", {"PushObject": push}),)
    )
    credentials = grpc.ssl_server_credentials(
        [(authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes())]
    )
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    yield FleetConnection(f"localhost:{port}", authority.certificate_path.read_bytes(), KEY)
    server.stop(None).wait()


def node(tmp_path: Path, heard: list[str]) -> FleetNode:
    return FleetNode(
        ["localhost:1"],
        b"",
        KEY,
        handler=lambda kind, body: Answer(body),
        store=MessageStore(tmp_path / "message"),
        on_state=lambda state, detail: heard.append(state),
        pace=Pace(first_retry=0.001, longest_retry=0.002),
    )


def test_what_is_too_large_or_unknown_to_the_server_is_refused_and_what_fits_is_taken(
    link: FleetConnection,
) -> None:
    assert link.call("PushObject", PushObjectRequest(object_content=b"x")).stored
    with pytest.raises(RefusedError, match="does not take a call") as caught:
        link.call("PushObject", PushObjectRequest(object_content=bytes(LARGEST)))
    assert "resource_exhausted" in str(caught.value.seen)
    with pytest.raises(RefusedError, match="does not take a call"):
        link.call("PullMessages", PullMessagesRequest())


def test_a_message_that_the_server_refuses_is_given_up_after_some_tries(
    link: FleetConnection, tmp_path: Path
) -> None:
    heard: list[str] = []
    with pytest.raises(RunOverError, match="will not take this message"):
        node(tmp_path, heard)._patiently(
            threading.Event(),
            lambda: link.call("PushObject", PushObjectRequest(object_content=bytes(LARGEST))),
        )
    assert heard == ["lost"] * (MOST_REFUSALS - 1)


def test_the_engineer_is_told_no_number_of_the_servers_own(link: FleetConnection, tmp_path: Path) -> None:
    said: list[str] = []
    asked = node(tmp_path, [])
    asked.on_state = lambda state, detail: said.append(f"{state} {detail}")
    message = Message(RecordDict(), dst_node_id=1, message_type="query.describe")
    message.metadata.__dict__["_run_id"] = 16329411295216418987
    stop = threading.Event()
    stop.set()
    with pytest.raises(FederationError, match="told to stop"):
        asked._answer(link, message_to_proto(message), stop)
    assert said == ["working on what headquarters asks"]


def test_a_lost_link_is_waited_for_however_long(tmp_path: Path) -> None:
    tries = iter(range(5 * MOST_REFUSALS))

    def action() -> str:
        if next(tries) < 5 * MOST_REFUSALS - 1:
            raise LinkLostError("the server does not answer")
        return "done"

    assert node(tmp_path, [])._patiently(threading.Event(), action) == "done"


class OneCall:
    """A connection that remembers what was handed in."""

    def __init__(self) -> None:
        self.proto = Node(node_id=7)
        self.pushed: list[Message] = []

    def call(self, method: str, request: Any, *, timeout: float = 0.0) -> Any:
        assert method == "PushMessages"
        self.pushed.append(message_from_proto(request.messages_list[0]))


def a_task() -> Message:
    task = Message(content_with(b"task"), dst_node_id=7, message_type="train", ttl=60.0)
    task.metadata.__dict__.update(_message_id="m1", _run_id=1, _src_node_id=1)
    return task


def test_an_answer_that_is_too_large_for_the_server_is_answered_with_that(tmp_path: Path) -> None:
    asked, link = node(tmp_path, []), OneCall()
    asked.handler = lambda kind, body: Answer(bytes(LARGEST_FLEET_MESSAGE))
    asked._answer(link, message_to_proto(a_task()), threading.Event())  # type: ignore[arg-type]
    assert "larger than headquarters takes" in link.pushed[0].error.reason


def test_a_message_that_no_node_survives_is_answered_with_that(tmp_path: Path) -> None:
    asked, link = node(tmp_path, []), OneCall()
    asked.store.keep(a_task())
    for _ in range(MOST_STARTS):
        asked.store.left()
    left = asked.store.left()
    assert left is not None and left.given_up
    asked._finish(link, left, threading.Event())  # type: ignore[arg-type]
    (answer,) = link.pushed
    assert "did not survive" in answer.error.reason and answer.metadata.reply_to_message_id == "m1"


def test_a_message_that_cannot_be_read_is_settled_with_the_next_question(tmp_path: Path) -> None:
    heard: list[str] = []
    asked = node(tmp_path, heard)

    def work() -> None:
        raise UpdateFormatError("a message's content cannot be read")

    asked._do(work, "m1")
    assert heard == ["dropped", "idle"] and asked._settled == ["m1"]
