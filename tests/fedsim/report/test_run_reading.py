"""A run folder becomes a summary: everything that is there, nothing that is not, damage named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from fedserver.rounds.events import RunFinished
from fedserver.rounds.history import Evaluation
from fedsim.report import load_run
from fedsim.report.model import natural_order
from fedspect.errors import DamagedFileError, WorkspaceError
from fedspect.files import append_line, write_json

Make = Callable[..., Any]


def test_a_whole_run_is_read_as_it_was_written(whole_run: Path) -> None:
    run = load_run(whole_run)
    assert run.facts.strategy == "fedavg"
    assert run.plant_names == ["plant-1", "plant-2", "plant-3", "plant-4"]
    assert [closed.round for closed in run.rounds] == [1, 2, 3, 4, 5, 6]
    assert run.rounds[0].tested_accuracy == pytest.approx(0.95 - 0.75 * 0.55)
    assert run.rounds[0].bytes_down == 4 * 640_000
    assert run.final is not None
    assert run.final.num_examples == len(run.predictions) == 48
    assert "strategy" in run.settings
    assert run.damaged_rows == 0


def test_what_became_of_each_answer_is_told_with_the_reason(whole_run: Path) -> None:
    run = load_run(whole_run)
    assert [(number, part.plant, part.state) for number, part in run.troubles] == [
        (2, "plant-4", "refused"),
        (3, "plant-2", "lost"),
        (4, "plant-3", "late"),
    ]
    reasons = [part.reason for _, part in run.troubles]
    assert reasons == [
        "the step is 41 times the median of the others",
        "no answer within 600 s",
        "rounds too late: 1",
    ]


def test_a_remark_said_twice_is_listed_once_with_its_rounds(whole_run: Path) -> None:
    remarks = load_run(whole_run).remarks
    assert [(each.who, each.text, each.rounds) for each in remarks] == [
        ("plant-1", "no picture of scratches at this plant", [2, 5])
    ]


def test_the_plants_accuracy_is_weighted_by_what_they_judged_without_late_answers(whole_run: Path) -> None:
    fourth = load_run(whole_run).rounds[3]
    in_time = [part.accuracy for part in fourth.plants if part.plant != "plant-3"]
    assert fourth.received_accuracy == pytest.approx(sum(a for a in in_time if a is not None) / 3)


def test_only_the_facts_are_needed(tmp_path: Path, sample: Make) -> None:
    write_json(tmp_path / "run.json", {"run_id": "r", "something": "new"})
    run = load_run(tmp_path)
    assert run.rounds == []
    assert run.final is None
    assert run.plant_names == []


def test_a_torn_or_foreign_row_is_counted_and_left_out(sample: Make) -> None:
    folder = sample(rounds=2, per_class=1).write()
    path = folder / "metrics.jsonl"
    append_line(path, json.dumps({"event": "RoundClosed", "record": {"round": "many"}}))
    append_line(path, json.dumps(["no", "event"]))
    append_line(path, json.dumps({"event": "SomethingNew", "x": 1}))
    with path.open("a") as file:
        file.write('{"event": "RoundClosed", "record": {"rou')
    run = load_run(folder)
    assert [closed.round for closed in run.rounds] == [1, 2]
    assert run.damaged_rows == 3


def test_a_round_that_was_repeated_counts_as_it_was_last(sample: Make) -> None:
    make = sample(rounds=2, per_class=1)
    folder = make.write()
    again = make.record(2).model_copy(update={"seconds": 99.0})
    append_line(
        folder / "metrics.jsonl",
        json.dumps({"event": "RoundClosed", "record": again.model_dump(mode="json")}),
    )
    run = load_run(folder)
    assert [closed.seconds for closed in run.rounds][1] == 99.0
    assert run.rounds[1].tested_accuracy is not None


def test_what_the_plants_say_of_the_last_model_is_read(sample: Make) -> None:
    make = sample(rounds=2, per_class=1)
    folder = make.write()
    last = Evaluation.of(2, "c" * 64, make.record(2).plants)
    event = RunFinished(rounds=2, version="c" * 64, stopped_early=False, evaluation=last)
    append_line(folder / "metrics.jsonl", json.dumps(event.as_dict()))
    closing = load_run(folder).closing
    assert closing is not None
    assert (closing.round, sorted(closing.plants)) == (2, ["plant-1", "plant-2", "plant-3", "plant-4"])


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"not the folder of a run.*run\.json"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("run.json", "{", "not valid JSON"),
        ("run.json", '{"plants": 3}', "plants"),
        ("evaluation.json", "[]", "not an object"),
        ("evaluation.json", '{"evaluation": {"accuracy": 1}}', "Field required"),
        ("comparison.json", '{"alone": []}', "federation"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(sample: Make, name: str, content: str, what: str) -> None:
    folder = sample(rounds=0, per_class=1).write()
    (folder / name).write_text(content)
    with pytest.raises(DamagedFileError, match=what) as caught:
        load_run(folder)
    assert name in str(caught.value)


def test_a_confusion_matrix_of_another_size_is_damage(sample: Make) -> None:
    folder = sample(rounds=0, per_class=1).write()
    content = json.loads((folder / "evaluation.json").read_text())
    content["evaluation"]["confusion"].pop()
    write_json(folder / "evaluation.json", content)
    with pytest.raises(DamagedFileError, match="does not fit 6 classes"):
        load_run(folder)


def test_plants_are_ordered_as_people_count() -> None:
    names = ["plant-10", "plant-2", "b", "plant-1", "a2", "", "2", "10"]
    assert sorted(names, key=natural_order) == ["", "2", "10", "a2", "b", "plant-1", "plant-2", "plant-10"]
