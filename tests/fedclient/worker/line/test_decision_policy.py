from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedclient.worker.line.decision_policy import ASK, PASS, REJECT, DecisionPolicy, threshold_table
from fedclient.worker.line.settings import VerdictSettings, read_settings
from fedspect.errors import SettingsError

CLASSES = ("sound", "scratch", "dent")


def outcome(row: list[float], **settings: object) -> str:
    given = VerdictSettings.model_validate({"good_classes": ["sound"], "sure": 0.8, **settings})
    return DecisionPolicy(given, CLASSES).by_confidence(np.array([row]))[0].outcome


def test_a_sure_good_piece_passes_and_a_sure_defect_is_rejected() -> None:
    assert outcome([0.9, 0.05, 0.05]) == PASS
    assert outcome([0.05, 0.9, 0.05]) == REJECT


def test_an_unsure_answer_asks_a_person() -> None:
    assert outcome([0.7, 0.2, 0.1]) == ASK
    assert outcome([0.4, 0.6, 0.0]) == ASK


def test_two_defects_that_cannot_be_told_apart_reject_the_piece() -> None:
    assert outcome([0.1, 0.46, 0.44]) == REJECT


def test_the_threshold_of_the_most_probable_class_counts() -> None:
    assert outcome([0.1, 0.9, 0.0], sure_of={"scratch": 0.95}) == ASK
    assert outcome([0.1, 0.0, 0.9], sure_of={"scratch": 0.95}) == REJECT


def test_without_a_good_class_nothing_passes() -> None:
    assert outcome([0.9, 0.1, 0.0], good_classes=[]) == REJECT
    assert outcome([0.5, 0.3, 0.2], good_classes=[]) == ASK


def test_a_class_that_the_model_does_not_know_is_named_with_its_neighbour() -> None:
    with pytest.raises(SettingsError, match="did you mean scratch"):
        DecisionPolicy(VerdictSettings(sure_of={"scrach": 0.5}), CLASSES)


@pytest.mark.parametrize("sure", [95.0, 1.5, 0.0, float("nan")])
def test_a_threshold_is_a_probability_whether_or_not_there_is_a_version(tmp_path: Path, sure: float) -> None:
    with pytest.raises(SettingsError, match=r"dent = .* as 0\.95"):
        read_settings(tmp_path, {"verdicts.sure_of": {"dent": sure}})


def test_the_table_says_what_is_in_force_for_each_class() -> None:
    settings = VerdictSettings(good_classes=["sound"], sure=0.7, sure_of={"dent": 0.9})
    assert threshold_table(settings, CLASSES) == [
        {"class": "sound", "good": True, "sure": 0.7},
        {"class": "scratch", "good": False, "sure": 0.7},
        {"class": "dent", "good": False, "sure": 0.9},
    ]


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda row: sum(row) > 0), st.floats(0.01, 1))
def test_no_piece_passes_below_its_threshold(row: list[float], sure: float) -> None:
    shares = np.array(row) / sum(row)
    verdict = DecisionPolicy(VerdictSettings(good_classes=["sound"], sure=sure), CLASSES).by_confidence(
        shares[None]
    )[0]
    if verdict.outcome == PASS:
        assert shares[0] >= sure - 2e-6 and verdict.label == "sound"
    if verdict.outcome == REJECT:
        assert 1 - shares[0] >= sure - 2e-6 and verdict.label != "sound"


def test_settings_are_read_from_line_toml_and_a_wrong_key_is_named(tmp_path: Path) -> None:
    folder = tmp_path
    assert read_settings(folder).verdicts.sure == 0.8
    (folder / "line.toml").write_text("[verdicts]\nsure = 0.9\ngood_clases = ['a']\n")
    with pytest.raises(SettingsError, match="did you mean verdicts"):
        read_settings(folder)
