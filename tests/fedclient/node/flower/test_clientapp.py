"""The ClientApp carries bytes, turns failures into words, and never needs torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from flwr.app.error import Error
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common import Array, ArrayRecord, Context, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.server.superlink.linkstate import utils as flower
from hypothesis import given
from hypothesis import strategies as st

import fedserver.flower.envelope as server
from fedclient.node.flower import clientapp as node
from fedspect.errors import UpdateFormatError, WorkerError


class Echo:
    """A worker that answers what it was asked, backwards."""

    def work(self, task: bytes) -> bytes:
        return task[::-1]

    def describe(self) -> bytes:
        return b"a plant"


class Failing(Echo):
    """A worker that does not."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def work(self, task: bytes) -> bytes:
        raise self.error


def context() -> Context:
    return Context(1, 2, UserConfig(), RecordDict(), UserConfig())


def ask(app: ClientApp, kind: str, body: bytes) -> Message:
    message = Message(server.content_with(body), dst_node_id=2, message_type=kind)
    return app(message, context())


@given(body=st.binary(max_size=3000))
def test_a_task_reaches_the_worker_and_its_answer_the_server(body: bytes) -> None:
    reply = ask(node.build_client_app(lambda context: Echo()), server.TRAIN, body)
    assert server.take_body(reply) == body[::-1]


def test_a_plant_describes_itself() -> None:
    reply = ask(node.build_client_app(lambda context: Echo()), server.DESCRIBE, b"")
    assert server.take_body(reply) == b"a plant"


def test_a_notice_is_heard_and_bounded() -> None:
    heard: list[str] = []
    app = node.build_client_app(lambda context: Echo(), on_notice=heard.append)
    ask(app, server.NOTICE, "refused: é".encode())
    ask(app, server.NOTICE, b"x" * 10**6)
    assert heard[0] == "refused: é"
    assert len(heard[1]) == node.LONGEST_NOTICE


def test_the_worker_is_found_by_the_context_of_the_message() -> None:
    seen: list[int] = []

    def worker_for(context: Context) -> Echo:
        seen.append(context.node_id)
        return Echo()

    ask(node.build_client_app(worker_for), server.TRAIN, b"")
    assert seen == [2]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            WorkerError("the worker was killed", remedy="it is started again"),
            "WorkerError: the worker was killed",
        ),
        (MemoryError("4 GB"), "MemoryError: 4 GB"),
    ],
)
def test_a_worker_that_fails_is_reported_with_its_reason(error: Exception, words: str) -> None:
    reply = ask(node.build_client_app(lambda context: Failing(error)), server.TRAIN, b"task")
    assert reply.has_error()
    assert server.failure_of(reply).startswith(words)


def test_a_worker_that_cannot_even_be_found_is_reported() -> None:
    def worker_for(context: Context) -> Echo:
        raise WorkerError("there is no worker")

    reply = ask(node.build_client_app(worker_for), server.TRAIN, b"task")
    assert "there is no worker" in server.failure_of(reply)


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (ErrorCode.MESSAGE_UNAVAILABLE, flower.MESSAGE_UNAVAILABLE_ERROR_REASON, "no answer came in time"),
        (
            ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
            flower.REPLY_MESSAGE_UNAVAILABLE_ERROR_REASON,
            "its answer came too late",
        ),
        (ErrorCode.NODE_UNAVAILABLE, flower.NODE_UNAVAILABLE_ERROR_REASON, "it went offline"),
        (ErrorCode.MESSAGE_UNAVAILABLE, "a part of an answer is gone", "a part of an answer is gone"),
    ],
)
def test_what_flowers_database_does_not_know_any_more_is_said_in_our_words(
    code: int, reason: str, words: str
) -> None:
    answer = Message(RecordDict(), dst_node_id=1, message_type=server.TRAIN)
    answer.__dict__.update(_content=None, _error=Error(code, reason))
    assert server.failure_of(answer) == words


def test_a_message_of_another_form_is_refused_in_words() -> None:
    app = node.build_client_app(lambda context: Echo())
    stranger = RecordDict({"arrays": ArrayRecord({"weights": Array("uint8", (3,), "numpy.ndarray", b"abc")})})
    reply = app(Message(stranger, dst_node_id=2, message_type="train"), context())
    assert "UpdateFormatError" in server.failure_of(reply)


def test_an_array_that_claims_to_be_numpys_is_not_unpacked() -> None:
    content = RecordDict({"body": ArrayRecord({"bytes": Array("uint8", (3,), "numpy.ndarray", b"abc")})})
    with pytest.raises(UpdateFormatError, match="no body of ours"):
        node.body_of(content)


def test_both_sides_call_the_same_things_by_the_same_names() -> None:
    assert (node.BODY, node.BYTES, node.BYTES_STYPE) == (server.BODY, server.BYTES, server.BYTES_STYPE)
    assert (f"query.{node.DESCRIBE}", f"query.{node.NOTICE}") == (server.DESCRIBE, server.NOTICE)


def test_the_node_never_loads_torch() -> None:
    code = (
        "import sys, fedclient.node.flower.clientapp; print(sorted({m.split('.')[0] for m in sys.modules}))"
    )
    path = os.pathsep.join(filter(None, sys.path))
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    ).stdout
    assert "'flwr'" in found
    for heavy in ("torch", "torchvision", "PIL", "onnxruntime", "ray"):
        assert f"'{heavy}'" not in found
