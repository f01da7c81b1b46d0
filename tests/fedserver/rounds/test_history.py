"""What is known of a run afterwards, and the events that tell of it while it goes on."""

from __future__ import annotations

import json

import pytest

from fedserver.rounds.events import (
    Event,
    PlantJoined,
    PlantLost,
    PlantRefused,
    PlantReplied,
    RoundClosed,
    RoundContext,
    RoundStarted,
    RunFinished,
    Waiting,
)
from fedserver.rounds.history import Evaluation, PlantResult, RoundRecord, RunHistory, mean_train_loss


def result(plant: str, evaluated: int = 10, **more: object) -> PlantResult:
    facts = {
        "plant": plant,
        "num_examples": 20,
        "counts": {"a": 20},
        "evaluated": evaluated,
        "metrics": {"accuracy": 0.5, "loss": 1.0},
        "seconds": {"total": 1.0},
        "remarks": [],
        "bytes_up": 100,
        "bytes_down": 200,
    }
    return PlantResult(**{**facts, **more})


def record(number: int, accuracy: float | None, **more: object) -> RoundRecord:
    """A round whose plants found the version before it this good."""
    evaluation = None
    if accuracy is not None:
        found = [result("plant-1", metrics={"accuracy": accuracy})]
        evaluation = Evaluation.of(number - 1, f"v{number - 1}", found)
    facts = {
        "round": number,
        "version": f"v{number}",
        "parent": f"v{number - 1}",
        "started": "2024-01-01T00:00:00+00:00",
        "seconds": 2.0,
        "plants": [result("plant-1", step=0.5)],
        "refused": [],
        "lost": {},
        "evaluation": evaluation,
        "train_loss": None,
        "bytes_up": 1,
        "bytes_down": 1,
        "notes": [],
    }
    return RoundRecord(**{**facts, **more})


def course(*accuracies: float | None) -> RunHistory:
    found = RunHistory([], {}, "accuracy")
    for number, accuracy in enumerate(accuracies, start=1):
        found.add(record(number, accuracy))
    return found


def test_means_weigh_plants_by_their_evaluation_pictures() -> None:
    found = Evaluation.of(
        3,
        "v3",
        [
            result("plant-2", 30, metrics={"accuracy": 1.0, "loss": 2.0}),
            result("plant-1", 10, metrics={"accuracy": 0.2}),
            result("plant-3", 0, metrics={}),
        ],
    )
    assert found is not None
    assert found.mean == {"accuracy": pytest.approx(0.8)}  # only plant-2 gave a loss
    assert list(found.plants) == ["plant-1", "plant-2"]
    assert found.evaluated == 40


def test_confusion_matrices_add_up_only_if_all_are_there() -> None:
    two = [result("plant-1", confusion=[[1, 2], [3, 4]]), result("plant-2", confusion=[[10, 0], [0, 10]])]
    assert Evaluation.of(1, "v", two).confusion == [[11, 2], [3, 14]]  # type: ignore[union-attr]
    assert Evaluation.of(1, "v", [*two, result("plant-3")]).confusion is None  # type: ignore[union-attr]


def test_nobody_evaluated_means_no_evaluation() -> None:
    assert Evaluation.of(1, "v", [result("plant-1", 0)]) is None


def test_the_training_loss_weighs_pictures_and_leaves_late_updates_out() -> None:
    found = mean_train_loss(
        [
            result("plant-1", num_examples=1, train_loss=1.0),
            result("plant-2", num_examples=3, train_loss=2.0),
            result("plant-3", num_examples=99, train_loss=9.0, late_by=1),
        ]
    )
    assert found == pytest.approx(1.75)
    assert mean_train_loss([result("plant-1")]) is None


def test_the_best_round_is_the_earliest_of_equals() -> None:
    assert course(0.1, 0.8, 0.8, 0.3).best() == 1
    assert course(None, None).best() is None


def test_standing_still_is_counted_in_versions_that_were_measured() -> None:
    assert not course(0.5, 0.4).should_stop_early(2)
    assert course(0.5, 0.4, 0.5).should_stop_early(2)
    assert not course(0.5, 0.4, 0.6).should_stop_early(2)
    assert not course(0.5, 0.4, 0.5).should_stop_early(None)


def test_a_closing_evaluation_is_the_best_but_takes_back_no_end() -> None:
    records = [record(number, accuracy) for number, accuracy in enumerate((0.5, 0.4, 0.5), start=1)]
    known = {one.evaluation.round: one.evaluation for one in records if one.evaluation is not None}
    closing = Evaluation.of(3, "v3", [result("plant-1", metrics={"accuracy": 0.9})])
    assert closing is not None
    found = RunHistory(records, {**known, 3: closing}, "accuracy")
    assert found.best() == 3
    assert found.should_stop_early(2)


def test_recent_steps_are_those_that_were_accepted_lately() -> None:
    found = course(0.1, 0.2, 0.3).recent_steps(2)
    assert [(step.plant, step.size.weights, step.examples) for step in found] == [("plant-1", 0.5, 20)] * 2


def test_recent_steps_count_what_was_believed_not_what_a_plant_claimed() -> None:
    found = course(0.1)
    found.add(record(2, 0.2, plants=[result("plant-1", step=0.5, num_examples=1_000_000, counted=60)]))
    assert [step.examples for step in found.recent_steps(2)] == [20, 60]  # the first is of an earlier version


def test_the_time_left_is_the_mean_so_far_for_every_round() -> None:
    assert course(0.1, 0.2).seconds_for(5) == pytest.approx(10.0)


CONTEXT = RoundContext("a-run", 2, 5, "ab" * 32, True)
EVENTS = [
    PlantJoined("plant-1", 12),
    RoundStarted(CONTEXT, ("plant-1", "plant-2")),
    PlantReplied(CONTEXT, result("plant-1")),
    PlantRefused("plant-1", 2, "update", "it is not finite", 3, True),
    PlantLost("plant-2", 2, "it went offline"),
    Waiting(2, 1, 2, "round 2 of 5 needs 2 plants and has 1"),
    RoundClosed(record(2, 0.5), 6.0),
    RunFinished(5, "ab" * 32, False, None),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_is_a_sentence_and_a_json_line(event: Event) -> None:
    assert "\n" not in str(event) and len(str(event)) > 10
    row = json.loads(json.dumps(event.as_dict()))
    assert row["event"] == type(event).__name__
    assert set(row) > {"event"}
