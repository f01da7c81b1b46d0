"""Messages that get lost: each becomes a failure with a reason, and a node owes nothing for ever."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flwr.common import Array, ArrayRecord, Message, RecordDict

from fedserver.flower.envelope import DESCRIBE, TRAIN
from fedserver.rounds.dispatcher import BATCH, MessageDispatcher
from linear_plants import LinearPlant
from scripted_grid import Clock, ScriptedGrid


def grid_of(folder: Path, plants: int = 1) -> ScriptedGrid:
    return ScriptedGrid([LinearPlant(f"plant-{n}", folder / str(n)) for n in range(plants)])


def test_an_answer_that_does_not_come_in_its_time_is_a_failure(tmp_path: Path) -> None:
    clock, grid = Clock(), grid_of(tmp_path)
    dispatcher = MessageDispatcher(grid, clock)
    grid.held.add(1)
    dispatcher.send(1, TRAIN, b"task", lifetime=30.0)
    assert dispatcher.busy() == {1}
    assert list(dispatcher.receive()) == []
    clock.now += 31
    (delivery,) = dispatcher.receive()
    assert delivery.failure == "no answer came in time"
    assert dispatcher.busy() == set()


def test_a_message_that_flower_does_not_take_is_a_failure(tmp_path: Path) -> None:
    class Refusing(ScriptedGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            return []

    dispatcher = MessageDispatcher(Refusing([LinearPlant("plant-1", tmp_path)]), Clock())
    dispatcher.send(1, TRAIN, b"task", lifetime=30.0)
    (delivery,) = dispatcher.receive()
    assert delivery.failure == "Flower did not take the message"


def test_a_node_that_went_away_owes_nothing_but_may_still_answer(tmp_path: Path) -> None:
    grid = grid_of(tmp_path)
    dispatcher = MessageDispatcher(grid, Clock())
    grid.held.add(1)
    dispatcher.send(1, TRAIN, b"task", lifetime=30.0)
    dispatcher.excuse(1)
    assert dispatcher.busy() == set()
    grid.held.clear()
    assert len(list(dispatcher.receive())) == 1


def test_an_answer_of_another_form_is_a_failure_in_words(tmp_path: Path) -> None:
    grid = grid_of(tmp_path)

    def strange(message: Message) -> Message:
        arrays = ArrayRecord({"weights": Array("uint8", (3,), "numpy.ndarray", b"abc")})
        return Message(RecordDict({"arrays": arrays}), reply_to=message)

    def altered(message: Message) -> Message:
        reply = strange(message)
        reply.metadata.__dict__["_reply_to_message_id"] = message.metadata.reply_to_message_id
        return reply

    grid.altered[1] = altered
    dispatcher = MessageDispatcher(grid, Clock())
    dispatcher.send(1, DESCRIBE, b"", lifetime=30.0)
    (delivery,) = dispatcher.receive()
    assert delivery.failure is not None and "no body of ours" in delivery.failure


def test_answers_are_pulled_a_few_at_a_time(tmp_path: Path) -> None:
    pulls: list[int] = []

    class Counting(ScriptedGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            wanted = list(message_ids)
            pulls.append(len(wanted))
            return super().pull_messages(wanted)

    count = 3 * BATCH + 1
    dispatcher = MessageDispatcher(
        Counting([LinearPlant(f"plant-{n}", tmp_path / str(n)) for n in range(count)]), Clock()
    )
    for node in range(1, count + 1):
        dispatcher.send(node, DESCRIBE, b"", lifetime=30.0)
    heard = 0
    while heard < count:
        heard += len(list(dispatcher.receive()))
    assert max(pulls) == BATCH
