"""A comparison trains every arm on the same split and says what joining gained each plant."""

from __future__ import annotations

import json

import pytest
from conftest import CALM, QUICK

from fedsim.compare import accuracy_on, chosen_arms
from fedsim.report import load_comparison
from fedspect.errors import SettingsError
from fedspect.training.metrics import ClassFigures, Evaluation, LineFigures


def evaluation_of(confusion: list) -> Evaluation:
    classes = ["a", "b", "c"]
    figures = [
        ClassFigures(name=name, precision=None, recall=None, f1=None, support=sum(row))
        for name, row in zip(classes, confusion)
    ]
    line = LineFigures(
        threshold=0.5, has_good_class=False, defects=0, escapes=0, good=0, false_rejects=None, wrong_alarms=0
    )
    return Evaluation(
        num_examples=sum(map(sum, confusion)), unlabelled=0, accuracy=0, balanced_accuracy=0, precision=0,
        recall=0, f1=0, log_loss=0, classes=figures, confusion=confusion, line=line, mistakes=[],
    )  # fmt: skip


def test_accuracy_on_some_classes_counts_their_pictures_only():
    evaluation = evaluation_of([[8, 2, 0], [0, 1, 3], [0, 0, 6]])
    assert accuracy_on(evaluation, ["a"]) == 0.8
    assert accuracy_on(evaluation, ["b", "c"]) == 0.7
    assert accuracy_on(evaluation, []) is None


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


def test_a_comparison_does_not_write_over_another_folder(tmp_path, pictures, fedsim):
    (tmp_path / "something").write_text("precious")
    assert fedsim("compare", "--data", pictures, *QUICK, "--output", tmp_path).code == 61
