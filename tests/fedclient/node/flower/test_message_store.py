"""A message in hand survives the node that took it, and is given up when it is what ends the node."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from flwr.common import Message

from fedclient.node.flower.envelope import body_of, content_with
from fedclient.node.flower.message_store import MOST_STARTS, MessageStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "message"


def a_message(body: bytes = b"a task") -> Message:
    message = Message(content_with(body), dst_node_id=7, message_type="train", group_id="3")
    message.metadata.__dict__["_message_id"] = "abc"
    return message


def test_nothing_is_left_at_first(path: Path) -> None:
    assert MessageStore(path).left() is None


def test_a_received_message_comes_back_whole(path: Path) -> None:
    MessageStore(path).keep(a_message(b"\0weights" * 1000))
    left = MessageStore(path).left()
    assert left is not None and not left.given_up
    assert body_of(left.message.content) == b"\0weights" * 1000
    assert (left.message.metadata.message_id, left.message.metadata.dst_node_id) == ("abc", 7)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_answer_that_was_not_handed_in_comes_back_as_it_was(path: Path) -> None:
    reply = Message(content_with(b"\0weights" * 1000), reply_to=a_message())
    MessageStore(path).keep(reply)
    left = MessageStore(path).left()
    assert left is not None
    assert left.message.metadata.reply_to_message_id == "abc"
    assert body_of(left.message.content) == b"\0weights" * 1000


def test_what_was_answered_is_not_left(path: Path) -> None:
    store = MessageStore(path)
    store.keep(a_message())
    store.done()
    assert store.left() is None and MessageStore(path).left() is None


def test_a_message_that_no_node_survives_is_given_up(path: Path) -> None:
    MessageStore(path).keep(a_message())
    found = [MessageStore(path).left() for _ in range(MOST_STARTS + 2)]
    assert [left.given_up for left in found if left is not None] == [False] * MOST_STARTS + [True, True]


@pytest.mark.parametrize("content", [b"", b"m", b"x\0junk", b"m\0\xff\xff\xff"])
def test_a_damaged_file_is_forgotten(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert MessageStore(path).left() is None
    assert not path.exists()
