from __future__ import annotations

import math
from typing import List, Optional, Sequence

import numpy as np
import pytest

from fedspect.errors import ClassError, NoPicturesError
from fedspect.training.metrics import evaluate, line_figures
from fedspect.training.reports import Predictions


def predictions(rows: Sequence[Sequence[float]], labels: List[int]) -> Predictions:
    return Predictions(
        np.asarray(rows, dtype=np.float32).reshape(len(labels), len(rows[0]) if rows else 2),
        np.asarray(labels, dtype=np.int64),
        tuple(f"{number}.png" for number in range(len(labels))),
    )


# Six pictures, three classes: called 0, 0, 1, 1, 1, 0; truly 0, 0, 0, 1, 1, 2.
THREE = predictions(
    [[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.3, 0.6, 0.1], [0.1, 0.9, 0.0], [0.2, 0.7, 0.1], [0.7, 0.2, 0.1]],
    [0, 0, 0, 1, 1, 2],
)
NAMES = ("a", "b", "c")


def test_figures_per_class_by_hand() -> None:
    result = evaluate(THREE, NAMES)
    a, b, c = result.classes
    assert result.confusion == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert result.accuracy == pytest.approx(4 / 6)
    assert (a.precision, a.recall, a.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (b.precision, b.recall, b.f1) == pytest.approx((2 / 3, 1.0, 0.8))
    assert c.precision is None and (c.recall, c.f1, c.support) == (0.0, 0.0, 1)
    assert result.f1 == pytest.approx((2 / 3 + 0.8) / 3)
    assert result.balanced_accuracy == pytest.approx((2 / 3 + 1) / 3)
    truths = [0.8, 0.5, 0.3, 0.9, 0.7, 0.1]
    assert result.log_loss == pytest.approx(-sum(map(math.log, truths)) / 6, rel=1e-5)


def test_mistakes_are_listed_worst_first() -> None:
    worst, second = evaluate(THREE, NAMES).mistakes
    assert (worst.name, worst.label, worst.predicted) == ("5.png", "c", "a")
    assert worst.probability == pytest.approx(0.7) and worst.probability_of_truth == pytest.approx(0.1)
    assert second.name == "2.png"
    assert len(evaluate(THREE, NAMES, worst=1).mistakes) == 1


# Defects "P" and good "N"; probability of good: 0.1, 0.6, 0.4 for the defects, 0.9, 0.45, 0.2 for the good
# ones.
LINE = predictions(
    [[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.1, 0.9], [0.55, 0.45], [0.8, 0.2]], [0, 0, 0, 1, 1, 1]
)


@pytest.mark.parametrize(
    ("threshold", "escapes", "false_rejects"), [(0.5, 1, 2), (0.3, 2, 1), (0.95, 0, 3), (0.0, 3, 0)]
)
def test_escapes_and_false_rejects_follow_the_threshold(
    threshold: float, escapes: int, false_rejects: int
) -> None:
    result = evaluate(LINE, ["P", "N"], good_classes=["N"], threshold=threshold)
    assert (result.escapes, result.false_rejects) == (escapes, false_rejects)
    assert (result.line.defects, result.line.good) == (3, 3)
    assert result.line.escape_rate == pytest.approx(escapes / 3)
    assert result.line.false_reject_rate == pytest.approx(false_rejects / 3)


def test_an_escape_among_the_mistakes_is_marked() -> None:
    marks = {
        mistake.name: mistake.escape for mistake in evaluate(LINE, ["P", "N"], good_classes=["N"]).mistakes
    }
    assert marks == {"1.png": True, "4.png": False, "5.png": False}


def test_without_a_good_class_an_escape_is_a_picture_that_nothing_is_said_of() -> None:
    result = evaluate(THREE, NAMES, threshold=0.65)
    # Highest probabilities 0.8, 0.5, 0.6, 0.9, 0.7, 0.7: two stay below; of the others the last is called
    # wrongly.
    assert result.escapes == 2 and result.false_rejects is None
    assert result.line.wrong_alarms == 1 and result.line.defects == 6 and result.line.good == 0
    assert result.line.false_reject_rate is None


def test_a_defect_stopped_under_another_defects_name_is_a_wrong_alarm_and_no_escape() -> None:
    # good is the likeliest class but stays below the threshold; the likeliest defect is the wrong one
    answers = predictions([[0.15, 0.4, 0.45]], [0])
    figures = line_figures(answers, ["rust", "scratch", "good"], good_classes=["good"], threshold=0.5)
    assert (figures.escapes, figures.wrong_alarms) == (0, 1)


def test_pictures_without_a_class_count_nowhere() -> None:
    rows = THREE.probabilities.tolist()
    result = evaluate(predictions([*rows, [0.0, 0.0, 1.0]], [0, 0, 0, 1, 1, 2, -1]), NAMES)
    expected = evaluate(THREE, NAMES)
    assert result.unlabelled == 1
    assert result.model_dump(exclude={"unlabelled"}) == expected.model_dump(exclude={"unlabelled"})


@pytest.mark.parametrize("labels", [[], [-1]])
def test_nothing_to_measure_by_is_said(labels: List[int]) -> None:
    with pytest.raises(NoPicturesError):
        evaluate(predictions([[0.5, 0.5]] * len(labels), labels), ["a", "b"])


def test_a_good_class_that_does_not_exist_is_said() -> None:
    with pytest.raises(ClassError, match="fine"):
        evaluate(THREE, NAMES, good_classes=["fine"])


@pytest.mark.parametrize("good", [None, "only"])
def test_a_single_class_can_be_measured(good: Optional[str]) -> None:
    result = evaluate(predictions([[1.0], [1.0]], [0, 0]), ["only"], good_classes=[good] if good else [])
    assert result.accuracy == 1.0 and result.confusion == [[2]] and result.mistakes == []


def test_the_figures_survive_a_trip_through_json() -> None:
    result = evaluate(LINE, ["P", "N"], good_classes=["N"])
    assert type(result).model_validate_json(result.model_dump_json()) == result
