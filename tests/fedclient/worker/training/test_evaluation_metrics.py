from __future__ import annotations

from typing import Tuple

import numpy as np
import pytest

from fedclient.worker.training.evaluation_metrics import figures_of
from fedspect.training.metrics import evaluate
from fedspect.training.reports import Predictions

CLASSES = ("good", "scratch", "pit", "never seen")


def predictions(count: int = 60, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    labels = random.integers(-1, 3, count)
    logits = random.standard_normal((count, 4)) + 2 * np.eye(4)[labels]
    probabilities = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    return Predictions(probabilities, labels.astype(np.int64), tuple(map(str, range(count))))


@pytest.mark.parametrize("good", [(), ("good",)])
def test_the_figures_are_those_of_the_full_evaluation(good: Tuple[str, ...]) -> None:
    figures = figures_of(predictions(), CLASSES, good_classes=good, threshold=0.6)
    full = evaluate(predictions(), CLASSES, good_classes=good, threshold=0.6)
    assert figures is not None
    assert (figures.evaluated, figures.confusion) == (full.num_examples, full.confusion)
    expected = {
        "accuracy": full.accuracy,
        "balanced_accuracy": full.balanced_accuracy,
        "precision": full.precision,
        "recall": full.recall,
        "f1": full.f1,
        "loss": full.log_loss,
        "escapes": full.escapes,
    }
    if good:
        expected["false_rejects"] = float(full.false_rejects or 0)
    assert figures.metrics == pytest.approx(expected, abs=1e-6)


def test_no_picture_with_a_class_gives_no_figures() -> None:
    nothing = Predictions(np.full((2, 4), 0.25, np.float32), np.array([-1, -1]), ("a", "b"))
    assert figures_of(nothing, CLASSES) is None


def test_worked_out_by_hand() -> None:
    answers = Predictions(
        np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32),
        np.array([0, 1, 1, 1]),
        ("a", "b", "c", "d"),
    )
    figures = figures_of(answers, ("good", "bad"), good_classes=("good",), threshold=0.5)
    assert figures is not None
    assert figures.confusion == [[1, 0], [1, 2]]
    assert figures.metrics["accuracy"] == 0.75
    assert figures.metrics["recall"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures.metrics["precision"] == pytest.approx((1 / 2 + 1) / 2)
    assert (figures.metrics["escapes"], figures.metrics["false_rejects"]) == (1, 0)
    assert figures.metrics["loss"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7]).mean(), abs=1e-6)
