"""A message in hand survives the node that took it, and is given up when it is what ends the node."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from flwr.common import Message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import ObjectTree

from fedclient.node.flower.envelope import body_of, content_with
from fedclient.node.flower.message_journal import MOST_STARTS, MessageJournal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "message"


def a_message(body: bytes = b"a task") -> Message:
    message = Message(content_with(body), dst_node_id=7, message_type="train", group_id="3")
    message.metadata.__dict__["_message_id"] = "abc"
    return message


def test_nothing_is_left_at_first(path: Path) -> None:
    assert MessageJournal(path).left() is None


def test_a_received_message_comes_back_whole(path: Path) -> None:
    MessageJournal(path).received(a_message(b"\0weights" * 1000))
    left = MessageJournal(path).left()
    assert isinstance(left, Message)
    assert body_of(left.content) == b"\0weights" * 1000
    assert (left.metadata.message_id, left.metadata.dst_node_id) == ("abc", 7)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_offer_comes_back_as_an_offer(path: Path) -> None:
    offer = PullMessagesResponse(
        messages_list=[message_to_proto(a_message())], message_object_trees=[ObjectTree(object_id="abc")]
    )
    MessageJournal(path).offered(offer)
    assert MessageJournal(path).left() == offer


def test_an_answer_that_was_not_handed_in_comes_back_under_its_own_hash(path: Path) -> None:
    reply = Message(content_with(b"\0weights" * 1000), reply_to=a_message())
    MessageJournal(path).answered(reply)
    left = MessageJournal(path).left()
    assert isinstance(left, Message)
    assert left.metadata.reply_to_message_id == "abc"
    assert left.object_id == reply.object_id  # the server knows an answer's parts by their hashes


def test_what_was_answered_is_not_left(path: Path) -> None:
    journal = MessageJournal(path)
    journal.received(a_message())
    journal.done()
    assert journal.left() is None and MessageJournal(path).left() is None


def test_a_message_that_no_node_survives_is_given_up(path: Path) -> None:
    MessageJournal(path).received(a_message())
    found = [MessageJournal(path).left() is not None for _ in range(MOST_STARTS + 2)]
    assert found == [True] * MOST_STARTS + [False, False]
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"r", b"x\0junk", b"r\0\xff\xff\xff", b"o\0"])
def test_a_damaged_file_is_given_up(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert MessageJournal(path).left() is None
    assert not path.exists()
