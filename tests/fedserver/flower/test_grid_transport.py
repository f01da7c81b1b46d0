"""Flower's Grid as a transport: bodies, failures in words, and messages of another form."""

from __future__ import annotations

from typing import List

import pytest
from flwr.app.error import Error
from flwr.common import Array, ArrayRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.server.superlink.linkstate import utils as flower
from hypothesis import given
from hypothesis import strategies as st

from fedclient.node.message_handler import Answer, MessageHandler
from fedserver.flower.envelope import failure_of
from fedserver.flower.transport import MOST_REPLIES, GridTransport
from fedserver.rounds.transport import Reply
from fedspect.errors import WorkerError
from fedspect.protocol.messages import DESCRIBE, NOTICE, TRAIN
from flower_grid import InProcessGrid


class Echo:
    def work(self, task: bytes) -> bytes:
        if task == b"fail":
            raise WorkerError("the worker was killed")
        return task[::-1]

    def describe(self) -> bytes:
        return b"a plant"


def asked(grid: InProcessGrid, kind: str, body: bytes, node: int = 1) -> Reply:
    transport = GridTransport(grid)
    (identity,) = transport.send([node], kind, body, lifetime=60.0, group="1")
    assert identity is not None
    (reply,) = transport.receive([identity])
    assert reply.message == identity
    assert list(transport.receive([identity])) == []
    return reply


def grid_of(count: int = 1) -> InProcessGrid:
    return InProcessGrid([MessageHandler(Echo) for _ in range(count)])


@given(body=st.binary(max_size=3000))
def test_a_body_goes_to_the_plant_and_its_answer_comes_back(body: bytes) -> None:
    assert asked(grid_of(), TRAIN, body + b"!").body == b"!" + body[::-1]


def test_every_kind_of_message_reaches_the_handler() -> None:
    heard: List[str] = []

    def handler(kind: str, body: bytes) -> Answer:
        heard.append(kind)
        return Answer(body)

    for kind in (TRAIN, DESCRIBE, NOTICE):
        assert asked(InProcessGrid([handler]), kind, b"x").body == b"x"
    assert heard == [TRAIN, DESCRIBE, NOTICE]
    assert GridTransport(grid_of(3)).nodes() == {1, 2, 3}


def test_a_plant_that_fails_is_a_failure_with_its_reason() -> None:
    assert asked(grid_of(), TRAIN, b"fail").failure == "WorkerError: the worker was killed"
    unknown = asked(grid_of(), "evaluate", b"").failure
    assert unknown is not None and "of a kind that this plant does not know" in unknown


def test_an_answer_of_another_form_is_a_failure_in_words() -> None:
    grid = grid_of()

    def strange(message: Message) -> Message:
        arrays = ArrayRecord({"weights": Array("uint8", (3,), "numpy.ndarray", b"abc")})
        message.content = RecordDict({"arrays": arrays})
        return message

    grid.altered = strange
    failure = asked(grid, DESCRIBE, b"").failure
    assert failure is not None and "no body of ours" in failure


def test_replies_come_a_few_at_a_time() -> None:
    count = 3 * MOST_REPLIES + 1
    transport = GridTransport(grid_of(count))
    sent = transport.send(range(1, count + 1), DESCRIBE, b"", lifetime=60.0, group="")
    waiting = [one for one in sent if one is not None]
    heard: List[int] = []
    while waiting:
        replies = list(transport.receive(waiting))
        heard.append(len(replies))
        waiting = [one for one in waiting if one not in {reply.message for reply in replies}]
    assert sum(heard) == count and max(heard) == MOST_REPLIES


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
        (ErrorCode.MESSAGE_UNAVAILABLE, "", "Flower's error 3 without a reason"),
    ],
)
def test_what_flowers_database_does_not_know_any_more_is_said_in_our_words(
    code: int, reason: str, words: str
) -> None:
    answer = Message(RecordDict(), dst_node_id=1, message_type=TRAIN)
    answer.__dict__.update(_content=None, _error=Error(code, reason))
    assert failure_of(answer) == words
