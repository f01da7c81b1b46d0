"""The SuperLink's message queue: whole messages, each offered until it is answered, and nodes that ask in turns."""

from __future__ import annotations

import time
from typing import Callable, Optional

import pytest
from flwr.common import Message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.constant import NOOP_FEDERATION, RunType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

from fedserver.flower.envelope import content_with, failure_of, take_body
from fedserver.flower.message_queue import BUSY_FOR, IDLE, SLOWEST, MessageQueue
from fedspect.protocol.messages import TRAIN


@pytest.fixture
def queue() -> MessageQueue:
    return MessageQueue(NoOpFederationManager(), ObjectStoreFactory().store())


def node_of(queue: MessageQueue, key: bytes = b"key", *, online: bool = True) -> int:
    node = queue.create_node("owner", "owner", key, 10.0)
    if online:
        assert queue.activate_node(node, 10.0)
    return node


def run_of(queue: MessageQueue) -> int:
    return queue.create_run("", "", "hash", {}, NOOP_FEDERATION, None, "owner", RunType.SERVER_APP)


def send(queue: MessageQueue, node: int, run: int, name: str = "m1", lifetime: float = 60.0) -> Optional[str]:
    message = Message(content_with(name.encode()), dst_node_id=node, message_type=TRAIN, ttl=lifetime)
    message.metadata.__dict__.update(_run_id=run, _src_node_id=SUPERLINK_NODE_ID, _message_id=name)
    return queue.store_message_ins(message)


def reply(message: Message, body: bytes, name: str = "r1") -> Message:
    made = Message(content_with(body), reply_to=message)
    made.metadata.__dict__["_message_id"] = name
    return made


def test_a_message_is_offered_until_it_is_answered_and_its_answer_is_given_once(queue: MessageQueue) -> None:
    node, run = node_of(queue), run_of(queue)
    assert send(queue, node, run) == "m1"
    for _ in range(3):  # a node that died before it wrote the message down asks again
        message = queue.next_message(node, [])
        assert message is not None
    assert queue.replies(["m1"], 8) == []
    assert queue.store_message_res(reply(message, b"answer")) == "r1"
    assert queue.next_message(node, []) is None
    (answer,) = queue.replies(["m1"], 8)
    assert take_body(answer) == b"answer"
    assert queue.num_message_ins() == queue.num_message_res() == 0


def test_an_answer_that_is_handed_in_again_counts_once(queue: MessageQueue) -> None:
    node, run = node_of(queue), run_of(queue)
    send(queue, node, run)
    message = queue.next_message(node, [])
    assert message is not None
    queue.store_message_res(reply(message, b"first", "r1"))
    assert queue.store_message_res(reply(message, b"second", "r2")) == "r1"
    assert take_body(queue.replies(["m1"], 8)[0]) == b"first"
    assert queue.store_message_res(reply(message, b"late", "r3")) is None


def test_messages_come_in_turn_and_one_that_is_settled_is_not_offered_again(queue: MessageQueue) -> None:
    node, run = node_of(queue), run_of(queue)
    send(queue, node, run, "m1")
    send(queue, node, run, "m2")
    assert queue.next_message(node, []).metadata.message_id == "m1"  # type: ignore[union-attr]
    assert queue.next_message(node, ["m1"]).metadata.message_id == "m2"  # type: ignore[union-attr]
    assert queue.next_message(node, ["m2", "never seen"]) is None


def test_another_node_gets_and_answers_none_of_it(queue: MessageQueue) -> None:
    node, other, run = node_of(queue, b"a"), node_of(queue, b"b"), run_of(queue)
    send(queue, node, run)
    assert queue.next_message(other, []) is None
    assert queue.next_message(other, ["m1"]) is None
    message = queue.next_message(node, [])
    assert message is not None
    foreign = reply(message, b"forged")
    foreign.metadata.__dict__["_src_node_id"] = other
    assert queue.store_message_res(foreign) is None


@pytest.mark.parametrize("gone", [lambda queue, node: queue.deactivate_node(node), None])
def test_what_will_not_be_answered_any_more_is_an_error(
    queue: MessageQueue, gone: Optional[Callable[[MessageQueue, int], bool]]
) -> None:
    node, run = node_of(queue), run_of(queue)
    send(queue, node, run, lifetime=60.0 if gone else 0.2)
    if gone:
        gone(queue, node)
    time.sleep(0.25)
    (answer,) = queue.replies(["m1"], 8)
    assert failure_of(answer) == ("it went offline" if gone else "no answer came in time")
    (unknown,) = queue.replies(["m1"], 8)
    assert unknown.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert queue.next_message(node, []) is None


def test_a_few_replies_are_given_at_a_time(queue: MessageQueue) -> None:
    node, run = node_of(queue), run_of(queue)
    names = [f"m{number}" for number in range(20)]
    for name in names:
        send(queue, node, run, name)
        message = queue.next_message(node, [])
        assert message is not None
        queue.store_message_res(reply(message, b"", f"r-{name}"))
    assert [len(queue.replies(names[start:], 8)) for start in (0, 8, 16)] == [8, 8, 4]


def test_a_key_may_come_back_under_another_number(queue: MessageQueue) -> None:
    never_online = node_of(queue, online=False)
    queue.delete_node("owner", never_online)
    assert queue.get_node_id_by_public_key(b"key") is None
    again = node_of(queue)
    assert again != never_online and queue.get_node_id_by_public_key(b"key") == again


def test_a_question_keeps_a_node_online_and_wakes_none_that_left(queue: MessageQueue) -> None:
    node, run = node_of(queue), run_of(queue)
    queue.nodes[node].online_until = time.time() + 0.1
    queue.heard_of(node)
    assert queue.nodes[node].online_until > time.time() + 10
    queue.deactivate_node(node)
    queue.heard_of(node)
    assert queue.get_nodes(run) == set()


def test_the_more_nodes_and_the_less_to_do_the_later_they_ask_again(queue: MessageQueue) -> None:
    nodes = [node_of(queue, str(number).encode()) for number in range(10)]
    assert queue.ask_again_in() == IDLE
    send(queue, nodes[0], run_of(queue))
    busy = queue.ask_again_in()
    assert 0.1 <= busy < IDLE
    for number in range(10, 400):
        node_of(queue, str(number).encode())
    queue._counted = (0.0, 0)
    assert busy < queue.ask_again_in() <= SLOWEST
    queue._stored_at -= BUSY_FOR
    assert queue.ask_again_in() == SLOWEST


def test_a_reply_counts_although_its_node_has_gone_since(queue: MessageQueue) -> None:
    node, run = node_of(queue), run_of(queue)
    send(queue, node, run)
    message = queue.next_message(node, [])
    assert message is not None
    queue.store_message_res(reply(message, b"answer"))
    queue.deactivate_node(node)
    assert take_body(queue.replies(["m1"], 8)[0]) == b"answer"
