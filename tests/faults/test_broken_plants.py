"""Plants that die, dawdle, or have the wrong time: what becomes of their round, and how they come back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from federation_parts import Process
from tiny_parts import TinyFederation, wait_for
from tiny_worker import Behaviour

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_node_killed_in_a_round_is_done_without_and_comes_back_by_itself(
    federation: TinyFederation,
) -> None:
    since = federation.mark()
    federation.behave("third", Behaviour(seconds=3600.0))
    worker, _ = federation.at_work("third")
    federation.kill_plant("third")
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the end of the worker without its node")
    lost = federation.wait_for_event("PlantLost", "third", since=since)
    federation.behave("third")
    federation.wait_for_rounds(2)
    record = next(one for one in federation.records(0) if one.round == lost["round"])
    assert sorted(one.plant for one in record.plants) == ["good-a", "good-b"]
    assert set(record.lost) == {"third"}
    federation.plant("third").wait_for("joined: at")


def test_a_node_killed_in_a_round_and_back_at_once_answers_that_round(federation: TinyFederation) -> None:
    federation.behave("third", Behaviour(seconds=3600.0))
    worker, cut = federation.at_work("third")
    federation.kill_plant("third")
    federation.behave("third")
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the end of the worker without its node")
    federation.plant("third")

    def answered() -> bool:
        """It answers the round that was cut: in it or, on a busy machine, in a later one, where an answer in time
        may take its place.
        """
        return any(
            row["result"]["plant"] == "third" and row["context"]["round"] - row["result"]["late_by"] == cut
            for row in federation.events("PlantReplied")
        )

    wait_for(answered, "the answer to the round that was cut")


def dies_while_it_hands_in(federation: TinyFederation) -> int:
    """The third plant's node dies between an answer's header and its parts; where the events stood before."""
    mark = federation.folder / "die"
    federation.plant_processes["third"].end()
    node = federation.plant("third", under=["dying_node", str(mark)])
    federation.well(["good-a", "good-b", "third"])
    since = federation.mark()
    mark.touch()
    wait_for(lambda: node.process.poll() is not None, "the node's end")
    assert not mark.exists()
    return since


def test_a_node_that_dies_while_it_hands_in_does_not_hold_up_the_round(federation: TinyFederation) -> None:
    since = dies_while_it_hands_in(federation)
    lost = federation.wait_for_event("PlantLost", "third", since=since)
    assert "had not answered at the deadline" in lost["reason"]
    federation.wait_for_rounds(1)


def test_a_node_that_died_while_it_handed_in_hands_in_the_rest_without_working_again(
    federation: TinyFederation,
) -> None:
    dies_while_it_hands_in(federation)
    federation.behave("third", Behaviour(seconds=3600.0))  # whatever it begins now never ends
    before = federation.last()
    federation.plant("third")

    def used() -> bool:
        return any(one.plant == "third" for record in federation.records(before) for one in record.plants)

    wait_for(used, "the answer that the node died over")
    federation.at_work("third")  # killed while it takes the task from headquarters, it would lose it
    federation.kill_plant("third")


def test_a_worker_killed_in_training_is_started_again_and_repeats_the_round(
    federation: TinyFederation,
) -> None:
    federation.behave("third", Behaviour(seconds=3600.0))
    worker, cut = federation.at_work("third")
    federation.behave("third")
    os.kill(worker, signal.SIGKILL)
    federation.plant_processes["third"].wait_for("the worker died and is started again")
    wait_for(lambda: federation.last() >= cut, "the round that was cut")
    used = {one.plant for one in federation.records(cut - 1)[0].plants}
    assert used == {"good-a", "good-b", "third"}


def impatient_plant(federation: TinyFederation) -> Process:
    """The third plant, which waits half a minute for a sign of life from its worker."""
    federation.plant_processes["third"].end()
    settings = federation.home("third") / "plant.toml"
    settings.write_text(settings.read_text().replace("silence = 300", "silence = 30"))
    assert "silence = 30\n" in settings.read_text()
    return federation.plant("third")


def test_a_worker_that_hangs_is_noticed_ended_and_repeats_the_round(federation: TinyFederation) -> None:
    node = impatient_plant(federation)
    federation.behave("third", Behaviour(seconds=3600.0))
    worker, _ = federation.at_work("third")
    federation.behave("third")
    os.kill(worker, signal.SIGSTOP)
    node.wait_for("it gave no sign of life for 30 s and was ended")
    assert not Path(f"/proc/{worker}").exists()
    federation.well(["good-a", "good-b", "third"])


def test_a_worker_that_takes_long_over_one_step_is_left_in_peace(federation: TinyFederation) -> None:
    node = impatient_plant(federation)
    federation.behave("third", Behaviour(seconds=50.0))  # in which the worker tells of no progress
    worker, number = federation.at_work("third")
    mark = federation.home("third") / "at-work"
    wait_for(
        lambda: not mark.exists() or mark.read_text() != f"{worker} {number}", "the end of the long step"
    )
    assert Path(f"/proc/{worker}").exists() and "no sign of life" not in node.said
    federation.behave("third")


def test_a_worker_that_dies_over_every_task_fails_its_rounds_and_the_node_lives_on(
    federation: TinyFederation,
) -> None:
    since = federation.mark()
    federation.behave("third", Behaviour(dies=True))
    lost = federation.wait_for_event("PlantLost", "third", since=since)
    assert "the worker dies over its work" in lost["reason"]
    assert federation.plant_processes["third"].process.poll() is None


def test_a_plant_much_slower_than_the_others_does_not_hold_them_up(federation: TinyFederation) -> None:
    since = federation.mark()
    federation.behave("third", Behaviour(seconds=10.0))  # longer than the deadline
    lost = federation.wait_for_event("PlantLost", "third", since=since)
    assert "deadline" in lost["reason"]
    federation.wait_for_rounds(2)  # the others go on while it works

    def late() -> bool:
        return any(one.late_by for record in federation.records(lost["round"]) for one in record.plants)

    wait_for(late, "the late update")  # it stays slow until then: an answer in time would take its place
    federation.behave("third")
    for record in federation.records(lost["round"]):
        for one in record.plants:
            if one.late_by:  # it counts, at half its weight for every round that it is late
                assert one.plant == "third" and 0 < one.weight < 1 / 3


@pytest.mark.parametrize("shift", [3600, -3600])
def test_a_device_whose_clock_is_an_hour_off_is_told_and_takes_part(
    federation: TinyFederation, shift: int
) -> None:
    federation.plant_processes["third"].end()
    node = federation.plant("third", under=["shifted_clock", str(shift)])
    node.wait_for(f"this device's clock is {shift:+d} s from headquarters'")
    node.wait_for("joined: at")
    federation.well(["good-a", "good-b", "third"])
    node.end()
