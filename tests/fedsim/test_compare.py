"""A comparison trains every arm on the same split and says what joining gained each plant."""

from __future__ import annotations

import json

import pytest

from fedsim.compare import ARMS, arms_asked, chosen_arms, found_of
from fedsim.report import load_comparison
from fedspect.errors import DamagedFileError, SettingsError
from fedspect.training.metrics import ClassMetrics, Evaluation, InspectionMetrics
from quick_runs import CALM, QUICK


def evaluation_of(recalls: dict) -> Evaluation:
    figures = [
        ClassMetrics(name=name, precision=None, recall=recall, f1=None, support=1)
        for name, recall in recalls.items()
    ]
    line = InspectionMetrics(
        threshold=0.5, has_good_class=False, defects=0, escapes=0, good=0, false_rejects=None, wrong_alarms=0
    )
    return Evaluation(
        num_examples=3, unlabelled=0, accuracy=0, balanced_accuracy=0, precision=0, recall=0, f1=0,
        log_loss=0, classes=figures, confusion=[], line=line, mistakes=[],
    )  # fmt: skip


def test_what_is_found_of_some_classes_is_the_mean_over_those_that_were_tested():
    evaluation = evaluation_of({"a": 0.8, "b": 0.25, "c": 1.0, "d": None})
    assert found_of(evaluation, ["a"]) == 0.8
    assert found_of(evaluation, ["b", "c", "d"]) == 0.625
    assert found_of(evaluation, []) is None and found_of(evaluation, ["d"]) is None


def test_arms_come_in_one_order_and_an_unknown_one_is_refused():
    assert chosen_arms(" pooled, alone ") == ["alone", "pooled"]
    for text in ("alone,together", ""):
        with pytest.raises(SettingsError):
            chosen_arms(text)


def test_a_comparison_measures_every_arm_and_goes_on_where_it_stood(tmp_path, pictures, fedsim):
    path = tmp_path / "comparison"
    options = ("--data", pictures, *QUICK, "--partition", "by-class", *CALM, "--rounds", 3)
    ended = fedsim("compare", *options, "--arms", "alone,pooled", "--output", path, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["federation"] is None
    first = {
        file.name: file.read_bytes() for file in path.rglob("plant-*.json") if file.parent.name == "alone"
    }
    assert sorted(first) == ["plant-1.json", "plant-2.json"]

    ended = fedsim("compare", "--resume", "--output", path, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["federation"] is None  # as it was asked for

    ended = fedsim("compare", "--resume", "--arms", ",".join(ARMS), "--output", path, "--json")
    assert ended.code == 0, ended.err
    assert {name: (path / "alone" / name).read_bytes() for name in first} == first
    comparison = load_comparison(path)
    assert comparison is not None and comparison.together is not None
    arms = [*comparison.alone, comparison.federation, comparison.together]
    assert {arm.evaluation.num_examples for arm in arms} == {6}
    assert (path / "comparison.html").is_file()
    gains = {row["plant"]: row for row in ended.json["gains"]}
    # By class: three classes for two plants, so each lacks one or two that it cannot know alone.
    assert all(row["lacks"] and row["lacking_alone"] == 0 for row in gains.values())
    assert sum(arm.pictures for arm in comparison.alone) == comparison.together.pictures
    run = json.loads((path / "federation" / "run.json").read_text())
    assert run["state"] == "finished"


def test_every_arm_stops_early_where_that_is_asked_for(tmp_path, pictures, fedsim):
    options = ("--data", pictures, *QUICK, *CALM, "--rounds", 30, "--local-epochs", 1)
    stopping = ("--set", "federation.early_stop=2", "--set", "data.evaluation_share=0.3")
    ended = fedsim("compare", *options, *stopping, "--output", tmp_path / "run", "--json")
    assert ended.code == 0, ended.err
    for arm in (*ended.json["alone"], ended.json["together"]):
        assert 2 < arm["epochs"] < 30
    ended = fedsim("run", "--resume", "--output", tmp_path / "run" / "federation")
    assert "of 30, stopped early, in" in ended.out


def test_a_comparison_of_an_earlier_version_goes_on_with_all_arms_and_a_damaged_wish_is_named(tmp_path):
    assert arms_asked(tmp_path) == list(ARMS)
    (tmp_path / "asked.json").write_text("{}")
    with pytest.raises(DamagedFileError, match="asked for"):
        arms_asked(tmp_path)


def test_a_comparison_does_not_write_over_another_folder(tmp_path, pictures, fedsim):
    (tmp_path / "something").write_text("precious")
    ended = fedsim("compare", "--data", pictures, *QUICK, "--output", tmp_path)
    assert ended.code == 61 and "--resume" in ended.err


def test_a_run_is_not_taken_for_a_comparison_to_go_on_with(tmp_path, fedsim):
    (tmp_path / "config.toml").touch()
    ended = fedsim("compare", "--resume", "--output", tmp_path)
    assert ended.code == 61 and "fedsim compare" in ended.err and "going on" not in ended.err
