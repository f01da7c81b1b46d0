"""Evaluation metrics of a received head on the plant's own evaluation pictures.

The same figures as ``fedspect.training.metrics.evaluate`` gives (a test holds them together), but counted
here: a small device need not load torchmetrics, which takes seconds and a few hundred megabytes, for a
confusion matrix.

Shapes: N pictures, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

import numpy as np

from fedspect.training.metrics import DEFAULT_THRESHOLD, SMALLEST_PROBABILITY, line_figures
from fedspect.training.reports import Predictions


@dataclass(frozen=True)
class EvaluationMetrics:
    """What travels in a ``RoundReply``."""

    evaluated: int
    """Pictures with a class."""
    metrics: Dict[str, float]
    """Shares from 0 to 1, ``loss`` in nats, ``escapes`` and ``false_rejects`` in pictures."""
    confusion: List[List[int]]
    """Row: true class; column: called class."""


def figures_of(
    predictions: Predictions,
    classes: Sequence[str],
    *,
    good_classes: Sequence[str] = (),
    threshold: Optional[float] = None,
) -> Optional[EvaluationMetrics]:
    """Compute them; None where no picture has a class.

    Raises:
        ClassError: a good class is not among the classes.

    """
    known = predictions.labels >= 0
    truth, probabilities = predictions.labels[known], predictions.probabilities[known].astype(np.float64)
    if not len(truth):
        return None
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (truth, probabilities.argmax(1)), 1)
    right, support, called = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    present = support > 0
    precision, recall = right / np.maximum(called, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + called, 1)
    of_truth = np.maximum(probabilities[np.arange(len(truth)), truth], SMALLEST_PROBABILITY)
    line = line_figures(
        predictions,
        classes,
        good_classes=good_classes,
        threshold=DEFAULT_THRESHOLD if threshold is None else threshold,
    )
    metrics = {
        "accuracy": float(right.sum() / len(truth)),
        "balanced_accuracy": float(recall[present].mean()),
        "precision": float(precision[present].mean()),
        "recall": float(recall[present].mean()),
        "f1": float(f1[present].mean()),
        "loss": float(-np.log(of_truth).mean()),
        "escapes": float(line.escapes),
    }
    if line.false_rejects is not None:
        metrics["false_rejects"] = float(line.false_rejects)
    return EvaluationMetrics(len(truth), metrics, confusion.tolist())
