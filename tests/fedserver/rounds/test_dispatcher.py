"""Messages that get lost: each becomes a failure with a reason, and a node owes nothing for ever."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedserver.rounds.dispatcher import MessageDispatcher
from fedspect.protocol.messages import TRAIN
from linear_plants import LinearPlant
from scripted_transport import Clock, ScriptedTransport


def transport_of(folder: Path, plants: int = 1) -> ScriptedTransport:
    return ScriptedTransport([LinearPlant(f"plant-{n}", folder / str(n)) for n in range(plants)])


def test_an_answer_that_does_not_come_in_its_time_is_a_failure(tmp_path: Path) -> None:
    clock, transport = Clock(), transport_of(tmp_path)
    dispatcher = MessageDispatcher(transport, clock)
    transport.held.add(1)
    dispatcher.send([1], TRAIN, b"task", lifetime=30.0)
    assert dispatcher.busy() == {1}
    assert list(dispatcher.receive()) == []
    clock.now += 31
    (delivery,) = dispatcher.receive()
    assert delivery.failure == "no answer came in time"
    assert dispatcher.busy() == set()


def test_a_message_that_is_not_taken_is_a_failure(tmp_path: Path) -> None:
    class Refusing(ScriptedTransport):
        def send(
            self, nodes: Sequence[int], kind: str, body: bytes, *, lifetime: float, group: str
        ) -> Sequence[str | None]:
            return [None] * len(nodes)

    dispatcher = MessageDispatcher(Refusing([LinearPlant("plant-1", tmp_path)]), Clock())
    dispatcher.send([1], TRAIN, b"task", lifetime=30.0)
    (delivery,) = dispatcher.receive()
    assert delivery.failure == "the message was not taken"


def test_a_node_that_went_away_owes_nothing_but_may_still_answer(tmp_path: Path) -> None:
    transport = transport_of(tmp_path)
    dispatcher = MessageDispatcher(transport, Clock())
    transport.held.add(1)
    dispatcher.send([1], TRAIN, b"task", lifetime=30.0)
    dispatcher.excuse(1)
    assert dispatcher.busy() == set()
    transport.held.clear()
    assert len(list(dispatcher.receive())) == 1
