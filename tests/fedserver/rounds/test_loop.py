"""The round loop, with real plants (a small network) behind a transport that the test directs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import linear_plants
from fedserver.rounds.events import (
    Event,
    PlantLost,
    PlantRefused,
    PlantReplied,
    RoundClosed,
    RoundStarted,
    RunFinished,
    Waiting,
)
from fedserver.rounds.loop import RoundLoop
from fedserver.rounds.outcome import RunOutcome
from fedserver.rounds.settings import RoundSettings
from fedserver.rounds.transport import Reply
from fedserver.storage.run_store import RunFacts, RunStore
from fedspect.errors import ConnectionLostError, InterruptedRunError, QuorumError
from fedspect.files import read_json
from fedspect.update.round_messages import PlantDescription, RoundReply, RoundTask
from fedspect.update.schema import Arrays
from linear_plants import LinearPlant
from scripted_transport import Clock, ScriptedTransport, Sent, failing


class Federation:
    """Three plants, a store and everything that was heard."""

    def __init__(
        self,
        folder: Path,
        workers: list[LinearPlant] | None = None,
        *,
        strategy: str = "fedavg",
        options: dict[str, Any] | None = None,
        **rounds: Any,
    ) -> None:
        self.folder = folder
        self.workers = workers or [
            LinearPlant(f"plant-{n}", folder / "work" / f"plant-{n}") for n in (1, 2, 3)
        ]
        self.transport = ScriptedTransport(self.workers)
        self.clock = Clock()
        self.events: list[Event] = []
        self.reactions: list[Callable[[Event], None]] = []
        settings: dict[str, Any] = {
            "rounds": 3,
            "quorum": 2,
            "expected_plants": 3,
            "gather": 5.0,
            "deadline": None,
            "give_up": 60.0,
            "poll": 0.0001,
            **rounds,
        }
        if not RunStore.exists(folder / "run"):
            facts = RunFacts(
                run_id="a-run",
                base_hash=linear_plants.BASE_HASH,
                classes=list(linear_plants.CLASSES),
                seed=3,
                strategy=strategy,
                strategy_options=options or {},
                rounds=RoundSettings(**settings),
            )
            RunStore.create(folder / "run", facts, linear_plants.start_head())
        self.store = RunStore(folder / "run")

    def run(self, **more: Any) -> RunFinished:
        return RoundLoop(self.transport, self.store, self._hear, clock=self.clock, **more).run()

    def on(self, kind: type[Event], round_number: int, action: Callable[[], None]) -> None:
        """Do something at an event of a round."""

        def react(event: Event) -> None:
            if not isinstance(event, kind):
                return
            facts = getattr(event, "record", None) or getattr(event, "context", event)
            if facts.round == round_number:
                action()

        self.reactions.append(react)

    def heard(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def head(self) -> Arrays:
        return self.store.latest().served.head

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        for react in self.reactions:
            react(event)


def equal(left: Arrays, right: Arrays) -> bool:
    return set(left) == set(right) and all(np.array_equal(left[name], right[name]) for name in left)


def poisoned(workers: list[LinearPlant], number: int, value: float = np.nan) -> None:
    """Let a plant train to nonsense and answer it all the same."""
    worker = workers[number - 1]

    def answer(task: RoundTask) -> RoundReply:
        after = LinearPlant.answer(worker, task)
        if not task.train:
            return after
        from fedspect.update.encoding import HEADER, seal
        from fedspect.update.schema import Schema

        head = linear_plants.start_head()
        schema = Schema.of(head)
        body = b"".join(np.full(spec.shape, value, dtype="<f4").tobytes() for spec in schema)
        assert HEADER.size
        return after.model_copy(update={"payload": seal("float32", schema, body), "encoding": "float32"})

    worker.answer = answer  # type: ignore[method-assign]


# -- the way it should go -----------------------------------------------------------------------------------


def test_rounds_make_the_model_better_and_each_is_evaluated_by_the_next(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=4, quorum=3)
    finished = federation.run()
    evaluations = federation.store.evaluations()
    assert sorted(evaluations) == [0, 1, 2, 3, 4]
    assert evaluations[4] == finished.evaluation
    assert evaluations[4].mean["loss"] < evaluations[2].mean["loss"] < evaluations[0].mean["loss"]
    assert [evaluations[n].version for n in range(5)] == [federation.store.version(n) for n in range(5)]
    records = federation.store.history()
    assert [record.round for record in records] == [1, 2, 3, 4]
    assert all(record.parent == federation.store.version(record.round - 1) for record in records)


def test_a_plants_weight_is_its_share_of_the_pictures(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=1, quorum=3)
    federation.run()
    total = sum(len(worker.labels) for worker in federation.workers)
    shares = {one.plant: one.weight for one in federation.store.history()[0].plants}
    assert shares == {w.name: pytest.approx(len(w.labels) / total) for w in federation.workers}


def test_a_round_remembers_how_many_pictures_each_plant_counted_for(tmp_path: Path) -> None:
    workers = [
        LinearPlant(f"plant-{n}", tmp_path / str(n), pictures=pictures)
        for n, pictures in ((1, 20), (2, 30), (3, 90))
    ]
    federation = Federation(tmp_path, workers, rounds=1, of_others=2.0)
    federation.run()
    (record,) = federation.store.history()
    assert [(one.num_examples, one.counted) for one in record.plants] == [(20, 20), (30, 30), (90, 50)]


def test_the_mean_accuracy_is_weighted_by_evaluation_pictures(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=1, quorum=3)
    federation.run()
    found = federation.store.evaluations()[1]
    sizes = {worker.name: len(worker.labels) for worker in federation.workers}
    right = sum(found.plants[name]["accuracy"] * size for name, size in sizes.items())
    assert found.mean["accuracy"] == pytest.approx(right / sum(sizes.values()))
    assert found.evaluated == sum(sizes.values())


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedmedian", "krum"])
def test_the_order_in_which_answers_arrive_changes_nothing(tmp_path: Path, strategy: str) -> None:
    heads = []
    for seed in (1, 2):
        federation = Federation(tmp_path / str(seed), strategy=strategy, rounds=2, quorum=3)
        shuffle = random.Random(seed)
        federation.transport.order = lambda ids, shuffle=shuffle: shuffle.sample(ids, len(ids))
        federation.run()
        heads.append(federation.head())
    assert equal(*heads)


def test_a_second_start_of_a_finished_run_does_nothing_again(tmp_path: Path) -> None:
    first = Federation(tmp_path)
    finished = first.run()
    again = Federation(tmp_path)
    assert again.run() == finished
    assert [type(event) for event in again.events] == [RunFinished]


def test_more_rounds_can_be_added_to_a_finished_run(tmp_path: Path) -> None:
    Federation(tmp_path / "short", rounds=2).run()
    longer = Federation(tmp_path / "short")
    longer.store.change_settings(longer.store.facts.rounds.model_copy(update={"rounds": 4}))
    longer.run()
    assert [record.round for record in longer.store.history()] == [1, 2, 3, 4]


def test_fedprox_tells_plants_how_strongly_to_hold_on(tmp_path: Path) -> None:
    federation = Federation(tmp_path, strategy="fedprox", options={"proximal_mu": 0.25}, rounds=1)
    federation.run()
    assert {task.proximal_mu for task in federation.workers[0].tasks if task.train} == {0.25}


def test_statistics_that_stay_with_plants_never_travel(tmp_path: Path) -> None:
    federation = Federation(tmp_path, batch_norm="per-plant", rounds=2)
    federation.run()
    assert set(federation.head()) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("encoding", ["float16", "int8", "sparse-int8"])
def test_plants_that_hold_the_version_before_get_a_change(tmp_path: Path, encoding: str) -> None:
    federation = Federation(tmp_path, encoding_down=encoding, rounds=3)
    federation.run()
    kinds = [task.payload_kind for task in federation.workers[1].tasks]
    assert kinds == ["full", "change", "change", "change"]
    assert not federation.heard(PlantLost)


def test_a_plant_that_lost_its_head_is_sent_the_whole_one_in_the_same_round(tmp_path: Path) -> None:
    federation = Federation(tmp_path, encoding_down="float16", rounds=2, quorum=3)
    federation.on(RoundClosed, 1, lambda: federation.workers[0].state.forget_heads())
    federation.on(
        RoundClosed,
        1,
        lambda: [p.unlink() for p in federation.workers[0].state.folder.rglob("*.safetensors")],
    )
    federation.run()
    assert [task.payload_kind for task in federation.workers[0].tasks] == ["full", "change", "full", "change"]
    assert len(federation.store.history()[1].plants) == 3


# -- too few plants -----------------------------------------------------------------------------------------


def test_too_few_plants_make_the_run_wait_and_say_so(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=3, rounds=1)
    federation.transport.offline = {2, 3}
    seen: list[dict[str, Any]] = []

    def come(event: Event) -> None:
        if isinstance(event, Waiting):
            seen.append(read_json(federation.store.folder / "status.json"))
            federation.transport.offline = set()

    federation.reactions.append(come)
    federation.run()
    (waiting,) = federation.heard(Waiting)
    assert (waiting.present, waiting.needed) == (1, 3)
    assert waiting.text == "round 1 of 1 needs 3 plants and has 1"
    assert seen[0]["state"] == "waiting" and seen[0]["text"] == waiting.text
    assert read_json(federation.store.folder / "status.json")["state"] == "finished"


def test_a_run_that_may_give_up_says_what_is_missing(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=3, give_up=5.0)
    federation.transport.offline = {3}
    with pytest.raises(QuorumError, match="needs 3 plants and has 2"):
        federation.run()
    outcome = RunOutcome.read(federation.store.folder)
    assert "needs 3 plants and has 2" in outcome.text
    with pytest.raises(QuorumError, match="needs 3 plants and has 2"):
        outcome.check()


def test_one_plant_is_said_in_the_singular(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=1, give_up=5.0)
    federation.transport.offline = {1, 2, 3}
    with pytest.raises(QuorumError, match="needs 1 plant and has 0"):
        federation.run()


def test_a_superlink_that_is_gone_is_said_in_words(tmp_path: Path) -> None:
    federation = Federation(tmp_path)

    def gone() -> None:
        raise ConnectionLostError("Flower's SuperLink did not answer any more", seen="unavailable")

    federation.on(RoundStarted, 1, gone)
    with pytest.raises(ConnectionLostError):
        federation.run()
    outcome = RunOutcome.read(federation.store.folder)
    assert outcome.text == "Flower's SuperLink did not answer any more; seen: unavailable"
    outcome.check()  # another start may mend it


def test_the_first_round_waits_for_the_plants_that_are_expected_but_not_for_ever(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=1, rounds=1, expected_plants=4, gather=3.0)
    federation.run()
    assert len(federation.heard(RoundStarted)[0].plants) == 3


def test_a_plant_that_comes_while_a_round_lacks_updates_takes_part_in_it(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=3, rounds=1)
    federation.on(RoundStarted, 1, lambda: federation.transport.offline.add(3))
    federation.on(Waiting, 1, lambda: federation.transport.offline.discard(3))
    federation.run()
    waiting = federation.heard(Waiting)[0]
    assert waiting.text == "round 1 of 1 needs 3 updates and has 2; plant-3: it went offline"
    assert [one.plant for one in federation.store.history()[0].plants] == ["plant-1", "plant-2", "plant-3"]


def test_a_plant_that_was_killed_and_is_back_is_asked_again_at_once(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=3, rounds=1, retry=3600.0)
    federation.on(RoundStarted, 1, lambda: federation.transport.offline.add(3))

    def back() -> None:
        federation.transport.forget(3)  # what it was given is lost with it
        federation.transport.offline.discard(3)

    federation.on(Waiting, 1, back)
    federation.run()
    assert [one.plant for one in federation.store.history()[0].plants] == ["plant-1", "plant-2", "plant-3"]


def test_a_plant_that_failed_once_and_then_answered_is_not_asked_again(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=3, rounds=1, retry=0.0)
    federation.on(RoundStarted, 1, lambda: federation.transport.offline.add(2))
    third = federation.workers[2]

    def fails_once(task: RoundTask) -> RoundReply:
        if len(third.tasks) == 1:
            raise MemoryError("no memory just now")
        if len(third.tasks) > 9:
            pytest.fail("it is asked again and again")
        return LinearPlant.answer(third, task)

    third.answer = fails_once  # type: ignore[method-assign]

    def second_comes_back() -> None:
        if len(third.tasks) > 1:
            federation.transport.forget(2)
            federation.transport.offline.discard(2)

    federation.on(Waiting, 1, second_comes_back)
    federation.run()
    assert [task.train for task in third.tasks] == [True, True, False]
    assert [one.plant for one in federation.store.history()[0].plants] == ["plant-1", "plant-2", "plant-3"]


def test_a_run_whose_plants_fail_at_once_can_be_stopped(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=3, rounds=1, retry=0.0, give_up=None)
    third = federation.workers[2]

    def fails(task: RoundTask) -> RoundReply:
        if len(third.tasks) > 9:
            pytest.fail("nobody asks whether to stop")
        raise MemoryError("no memory")

    third.answer = fails  # type: ignore[method-assign]
    with pytest.raises(InterruptedRunError):
        federation.run(should_stop=lambda: len(third.tasks) > 4)


def test_plants_come_and_go_between_rounds(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=2, rounds=3)
    federation.transport.offline = {3}
    federation.on(RoundClosed, 1, lambda: federation.transport.offline.symmetric_difference_update({1, 3}))
    federation.on(RoundClosed, 1, lambda: setattr(federation.clock, "now", federation.clock.now + 5))
    federation.run()
    plants = [[one.plant for one in record.plants] for record in federation.store.history()]
    assert plants[0] == ["plant-1", "plant-2"]
    assert plants[-1] == ["plant-2", "plant-3"]


def test_a_plant_whose_work_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=2)

    def fail(task: RoundTask) -> RoundReply:
        raise OSError(28, "No space left on device")

    federation.workers[2].answer = fail  # type: ignore[method-assign]
    federation.run()
    lost = federation.heard(PlantLost)
    assert {one.plant for one in lost} == {"plant-3"}
    assert "No space left on device" in lost[0].reason
    assert federation.store.history()[0].lost.keys() == {"plant-3"}


def test_a_node_that_answers_with_a_failure_is_a_lost_plant_whose_reason_is_one_line(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=1)
    federation.transport.altered[2] = failing("the client app crashed\nTraceback ...")
    federation.run()
    assert federation.store.history()[0].lost == {"plant-2": "the client app crashed"}


# -- slow plants ---------------------------------------------------------------------------------------------


def slow_federation(folder: Path, **rounds: Any) -> Federation:
    """Plant 3 does not answer in round 1, and answers when round 2 has begun."""
    federation = Federation(folder, quorum=2, deadline=2.0, **rounds)
    federation.on(RoundStarted, 1, lambda: federation.transport.held.add(3))
    federation.on(RoundStarted, 2, lambda: federation.transport.held.discard(3))
    return federation


def test_at_the_deadline_a_round_closes_with_whoever_answered(tmp_path: Path) -> None:
    federation = slow_federation(tmp_path)
    federation.run()
    first = federation.store.history()[0]
    assert [one.plant for one in first.plants] == ["plant-1", "plant-2"]
    assert first.lost == {"plant-3": "it had not answered at the deadline"}


def test_a_late_update_is_used_in_the_next_round_with_its_discount(tmp_path: Path) -> None:
    federation = slow_federation(tmp_path, late_discount=0.25)
    federation.run()
    second = {one.plant: one for one in federation.store.history()[1].plants}
    assert second["plant-3"].late_by == 1
    sizes = {worker.name: len(worker.labels) for worker in federation.workers}
    total = sizes["plant-1"] + sizes["plant-2"] + 0.25 * sizes["plant-3"]
    assert second["plant-3"].weight == pytest.approx(0.25 * sizes["plant-3"] / total)
    assert "plant-3" not in federation.store.evaluations()[1].plants  # it evaluated an older version
    third = federation.store.history()[2]
    assert [one.late_by for one in third.plants] == [0, 0, 0]


def test_a_late_update_that_comes_between_two_rounds_is_used_in_the_next(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=2, deadline=2.0)
    federation.on(RoundStarted, 1, lambda: federation.transport.held.add(3))
    federation.on(RoundClosed, 1, lambda: federation.transport.held.discard(3))
    federation.on(RoundStarted, 2, lambda: federation.transport.held.add(3))
    federation.run()
    second = {one.plant: one for one in federation.store.history()[1].plants}
    assert second["plant-3"].late_by == 1 and second["plant-3"].weight > 0


def test_an_answer_in_time_takes_the_place_of_a_late_one(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=2, deadline=2.0)
    federation.on(RoundStarted, 1, lambda: federation.transport.held.add(3))
    federation.on(RoundClosed, 1, lambda: federation.transport.held.discard(3))
    federation.run()
    second = {one.plant: one.late_by for one in federation.store.history()[1].plants}
    assert second == {"plant-1": 0, "plant-2": 0, "plant-3": 0}


def test_a_closing_evaluation_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=1, give_up=2.0)
    federation.on(RoundClosed, 1, lambda: federation.transport.offline.update({2, 3}))
    federation.on(RoundClosed, 1, lambda: setattr(federation.clock, "now", federation.clock.now + 5))
    finished = federation.run()
    assert finished.rounds == 1 and finished.evaluation is None
    again = Federation(tmp_path)
    assert again.run().evaluation is not None


def test_a_late_update_is_refused_where_the_settings_say_so(tmp_path: Path) -> None:
    federation = slow_federation(tmp_path, late="refuse")
    federation.run()
    second = federation.store.history()[1]
    assert [one.plant for one in second.plants] == ["plant-1", "plant-2"]
    assert [(one.plant, one.kind) for one in second.refused] == [("plant-3", "late")]
    assert federation.store.latest().plants["plant-3"].refusals == 0  # being slow is no offence


@pytest.mark.parametrize(
    ("moment", "number", "asked_again"), [(RoundStarted, 2, False), (RoundClosed, 1, True)]
)
def test_an_answer_that_is_late_and_cannot_be_read_is_refused_and_the_plant_is_told(
    tmp_path: Path, moment: type[Event], number: int, asked_again: bool
) -> None:
    federation = Federation(tmp_path, quorum=2, deadline=2.0)
    federation.on(RoundStarted, 1, lambda: federation.transport.held.add(3))
    federation.on(moment, number, lambda: federation.transport.held.discard(3))

    def cut(sent: Sent, reply: Reply) -> Reply:
        return Reply(reply.message, reply.body[:-20]) if sent.group == "1" else reply

    federation.transport.altered[3] = cut
    federation.run()
    first, second, third = federation.store.history()
    assert "plant-3" in first.lost
    (refused,) = federation.heard(PlantRefused)
    assert (refused.plant, refused.round, refused.in_a_row) == ("plant-3", 2, 1)
    assert [one.plant for one in second.refused] == ([] if asked_again else ["plant-3"])
    assert ("plant-3" in [one.plant for one in second.plants]) == asked_again
    assert [one.plant for one in third.plants] == ["plant-1", "plant-2", "plant-3"]
    (notice,) = federation.transport.notices
    assert "a message is damaged" in notice


def test_work_that_fails_after_its_round_has_closed_is_told_with_its_reason(tmp_path: Path) -> None:
    federation = slow_federation(tmp_path)
    third = federation.workers[2]

    def fails_at_first(task: RoundTask) -> RoundReply:
        if task.round == 1:
            raise OSError(28, "No space left on device")
        return LinearPlant.answer(third, task)

    third.answer = fails_at_first  # type: ignore[method-assign]
    federation.run()
    in_time, late = federation.heard(PlantLost)
    assert (in_time.round, in_time.reason) == (1, "it had not answered at the deadline")
    assert late.round == 2 and late.reason.startswith("its work of round 1 failed: ")
    assert "No space left on device" in late.reason
    assert "plant-3" in [one.plant for one in federation.store.history()[2].plants]


def test_an_update_that_is_later_than_allowed_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quorum=2, deadline=2.0, rounds=4, late_rounds=1)
    federation.on(RoundStarted, 1, lambda: federation.transport.held.add(3))
    federation.on(RoundStarted, 3, lambda: federation.transport.held.discard(3))
    federation.run()
    lifetimes_over = [event.reason for event in federation.heard(PlantLost) if event.plant == "plant-3"]
    assert lifetimes_over[0] == "it had not answered at the deadline"
    assert all(one.late_by == 0 for record in federation.store.history() for one in record.plants)


# -- updates that must not touch the model -------------------------------------------------------------------


def test_an_update_with_nan_is_refused_and_named_and_the_model_stays_finite(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=1)
    poisoned(federation.workers, 2)
    federation.run()
    (refused,) = federation.heard(PlantRefused)
    assert refused.plant == "plant-2" and "is not finite" in refused.reason
    assert all(np.isfinite(values).all() for values in federation.head().values())
    assert [one.plant for one in federation.store.history()[0].refused] == ["plant-2"]
    assert any("is not finite" in notice for notice in federation.transport.notices)


def test_the_result_is_as_if_the_refused_plant_had_not_been_there(tmp_path: Path) -> None:
    with_it = Federation(tmp_path / "with", rounds=1)
    poisoned(with_it.workers, 3, value=np.inf)
    with_it.run()
    without = Federation(tmp_path / "without", rounds=1)
    without.transport.offline = {3}
    without.run()
    assert equal(with_it.head(), without.head())


def test_a_plant_refused_three_rounds_running_is_quarantined_until_an_operator_looks(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=6)
    poisoned(federation.workers, 1)
    federation.on(RoundClosed, 5, lambda: federation.store.quarantine_releases.add("plant-1"))
    federation.on(RoundClosed, 5, lambda: setattr(federation.clock, "now", federation.clock.now + 5))
    federation.run()
    refused = federation.heard(PlantRefused)
    assert [(one.round, one.in_a_row, one.quarantined) for one in refused] == [
        (1, 1, False),
        (2, 2, False),
        (3, 3, True),
        (6, 1, False),
    ]
    assert [len(event.plants) for event in federation.heard(RoundStarted)][:6] == [3, 3, 3, 2, 2, 3]


def test_a_quarantine_survives_a_restart(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=4)
    poisoned(federation.workers, 1)
    federation.run()
    again = Federation(tmp_path)
    again.store.change_settings(again.store.facts.rounds.model_copy(update={"rounds": 5}))
    again.run()
    assert again.heard(RoundStarted)[0].plants == ("plant-2", "plant-3")


def test_being_let_in_again_survives_a_server_that_ends_before_the_round_does(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=3)
    poisoned(federation.workers, 1)
    federation.run()
    cut = Federation(tmp_path)
    cut.store.change_settings(cut.store.facts.rounds.model_copy(update={"rounds": 4}))
    cut.store.quarantine_releases.add("plant-1")
    with pytest.raises(InterruptedRunError):
        cut.run(should_stop=lambda: bool(cut.heard(RoundStarted)))
    again = Federation(tmp_path)
    again.run()
    started = [federation.heard(RoundStarted)[0].plants for federation in (cut, again)]
    assert started == [("plant-1", "plant-2", "plant-3")] * 2
    assert again.store.quarantine_releases.take() == []


def test_too_many_refusals_for_a_quorum_end_in_waiting_with_the_reasons(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=1, quorum=3, give_up=1.0)
    poisoned(federation.workers, 2)
    with pytest.raises(QuorumError, match="plant-2: the update of plant-2 is refused"):
        federation.run()
    assert federation.store.latest().round == 0


def strayed(workers: list[LinearPlant], *numbers: int) -> None:
    """Let plants find statistics that are far from those of the head that they were given."""
    for number in numbers:
        worker = workers[number - 1]

        def train(head: Arrays, task: RoundTask, worker: LinearPlant = worker) -> Arrays:
            after = LinearPlant.train(worker, head, task)
            return {**after, "norm.running_mean": after["norm.running_mean"] + np.float32(1e6)}

        worker.train = train  # type: ignore[method-assign]


def test_where_the_base_models_statistics_are_far_from_all_pictures_it_is_named_not_the_plants(
    tmp_path: Path,
) -> None:
    federation = Federation(tmp_path, rounds=1, quorum=2, give_up=1.0)
    strayed(federation.workers, 1, 2, 3)
    with pytest.raises(QuorumError, match="step of the statistics") as ended:
        federation.run()
    assert "begin with another base model" in str(ended.value.remedy)
    assert "begin with another base model" in federation.heard(Waiting)[-1].text


@pytest.mark.parametrize("others", ["silent", "refused for something else", "accepted"])
def test_one_plant_with_stray_statistics_does_not_put_the_blame_on_the_base_model(
    tmp_path: Path, others: str
) -> None:
    federation = Federation(tmp_path, rounds=1, quorum=1 if others == "silent" else 3, give_up=1.0)
    strayed(federation.workers, 1)
    if others != "accepted":
        poisoned(federation.workers, 2)
        poisoned(federation.workers, 3)
    if others == "silent":
        federation.on(RoundStarted, 1, lambda: federation.transport.offline.update({2, 3}))
    with pytest.raises(QuorumError, match="step of the statistics") as ended:
        federation.run()
    assert "mend the plants" in str(ended.value.remedy)


def test_bytes_that_are_no_answer_are_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=1)
    federation.workers[1].work = lambda task: b"garbage" * 99  # type: ignore[method-assign]
    federation.run()
    (refused,) = federation.heard(PlantRefused)
    assert refused.plant == "plant-2" and refused.kind == "update"


def test_an_answer_under_another_plants_name_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=1)
    honest = federation.workers[1].answer
    federation.workers[1].answer = lambda task: honest(task).model_copy(  # type: ignore[method-assign]
        update={"plant": "plant-1"}
    )
    federation.run()
    (refused,) = federation.heard(PlantRefused)
    assert refused.plant == "plant-2" and "under another plant's name" in refused.reason


# -- who may take part ---------------------------------------------------------------------------------------


def describing(worker: LinearPlant, **change: Any) -> LinearPlant:
    """Let a plant say something else about itself."""
    true = PlantDescription.from_bytes(worker.describe())
    worker.describe = true.model_copy(update=change).to_bytes  # type: ignore[method-assign]
    return worker


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": ["dent", "good"]}, "knows other classes"),
        ({"base_hash": "00" * 32}, "has another base model"),
        ({"base_hash": None}, "has another base model"),
        ({"plant": "plant-1"}, "bears the name plant-1"),
    ],
)
def test_a_node_that_does_not_fit_the_run_is_kept_out(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    federation = Federation(tmp_path, rounds=1)
    describing(federation.workers[2], **change)
    federation.run()
    assert federation.heard(RoundStarted)[0].plants == ("plant-1", "plant-2")
    (refused,) = federation.heard(PlantRefused)
    assert refused.kind == "joining" and reason in refused.reason


# -- the end -------------------------------------------------------------------------------------------------


def test_a_run_stops_early_when_the_model_gets_no_better(tmp_path: Path) -> None:
    federation = Federation(tmp_path, rounds=50, early_stop=2, learning_rate=1e-9)
    finished = federation.run()
    assert finished.stopped_early
    assert finished.rounds == 3  # round 3's plants say that versions 1 and 2 were no better than 0


def test_an_interrupted_run_goes_on_to_the_same_model(tmp_path: Path) -> None:
    whole = Federation(tmp_path / "whole", strategy="fedadam", encoding="sparse-int8", encoding_down="int8")
    whole.run()
    cut = Federation(tmp_path / "cut", strategy="fedadam", encoding="sparse-int8", encoding_down="int8")
    with pytest.raises(InterruptedRunError):
        cut.run(should_stop=lambda: len(cut.heard(PlantReplied)) >= 5)
    assert cut.store.latest().round == 1
    again = Federation(tmp_path / "cut")
    again.run()
    assert [record.round for record in again.store.history()] == [1, 2, 3]
    assert equal(whole.head(), again.head())


def test_history_holds_every_round_once_whatever_happened(tmp_path: Path) -> None:
    def stops() -> Iterator[bool]:
        yield from [False] * 9
        yield True

    for _ in range(8):
        turn = stops()
        federation = Federation(tmp_path, rounds=5)
        try:
            federation.run(should_stop=lambda turn=turn: next(turn, True))
        except InterruptedRunError:
            continue
    Federation(tmp_path).run()
    assert [record.round for record in federation.store.history()] == [1, 2, 3, 4, 5]
