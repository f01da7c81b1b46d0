"""Classification metrics: the figures of a paper, and those that an inspector asks for.

Precision, recall and F1 per class, accuracy and the confusion matrix come from torchmetrics. An inspector
asks something else: how many defects would have gone out of the door, and how many good pieces would have
been thrown away, if the line obeyed the network at a chosen *threshold*.

With good classes among the classes (ball screw: "N"), a piece *passes* when the probabilities of the good
classes sum to the threshold or more; then

- an *escape* is a defect that passes,
- a *false reject* is a good piece that does not.

Without a good class (NEU: six kinds of defect) every picture shows a defect and a piece passes when no
class reaches the threshold: the network has found nothing that it would stand for. Then

- an *escape* is a picture whose highest probability is below the threshold,
- there can be no false rejects (None), but *wrong alarms*: pictures where a wrong class reaches the
  threshold.

Shapes: N pictures, K classes.
"""

from __future__ import annotations

from typing import List, Optional, Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from fedspect.errors import ClassError, NoPicturesError
from fedspect.training.reports import Predictions

DEFAULT_THRESHOLD = 0.5
SMALLEST_PROBABILITY = 1e-12


class ClassMetrics(BaseModel):
    """One class: shares are None where nothing was there to be counted."""

    model_config = ConfigDict(frozen=True)

    name: str
    precision: Optional[float]
    """Of the pictures that were called so, the share that are; None where none was called so."""
    recall: Optional[float]
    """Of the pictures that are so, the share that was called so; None where there are none."""
    f1: Optional[float]
    """Harmonic mean of the two; None where there are none."""
    support: int
    """Pictures of this class."""


class Misclassification(BaseModel):
    """One wrong answer."""

    model_config = ConfigDict(frozen=True)

    name: str
    label: str
    predicted: str
    probability: float
    """Of the wrong class."""
    probability_of_truth: float
    escape: bool
    """Whether this one would have passed."""


class InspectionMetrics(BaseModel):
    """What would happen on the line at one threshold."""

    model_config = ConfigDict(frozen=True)

    threshold: float
    has_good_class: bool
    defects: int
    """Pictures that show a defect."""
    escapes: int
    """Of those, how many pass."""
    good: int
    """Pictures of good pieces."""
    false_rejects: Optional[int]
    """Of those, how many do not pass; None without a good class."""
    wrong_alarms: int
    """Defects that are stopped, but under the name of another defect."""

    @property
    def escape_rate(self) -> Optional[float]:
        """Escapes as a share of the defects; None without defects."""
        return self.escapes / self.defects if self.defects else None

    @property
    def false_reject_rate(self) -> Optional[float]:
        """False rejects as a share of the good pieces; None without good pieces."""
        return self.false_rejects / self.good if self.good and self.false_rejects is not None else None


class Evaluation(BaseModel):
    """All figures of one set of pictures."""

    model_config = ConfigDict(frozen=True)

    num_examples: int
    unlabelled: int
    """Pictures without a known class; they are in none of the figures."""
    accuracy: float
    balanced_accuracy: float
    """Mean recall over the classes that have pictures."""
    precision: float
    """Mean over the classes that have pictures; a class that was never called counts as 0."""
    recall: float
    """Mean over the classes that have pictures."""
    f1: float
    """Mean over the classes that have pictures."""
    log_loss: float
    """Mean negative logarithm of the true class's probability, in nats."""
    classes: List[ClassMetrics]
    confusion: List[List[int]]
    """Row: true class; column: called class."""
    line: InspectionMetrics
    mistakes: List[Misclassification]
    """The worst first: those where the truth had the least probability."""

    @property
    def escapes(self) -> int:
        """Defects that pass at the threshold."""
        return self.line.escapes

    @property
    def false_rejects(self) -> Optional[int]:
        """Good pieces that do not pass at the threshold; None without a good class."""
        return self.line.false_rejects


def evaluate(
    predictions: Predictions,
    classes: Sequence[str],
    *,
    good_classes: Sequence[str] = (),
    threshold: Optional[float] = None,
    worst: int = 20,
) -> Evaluation:
    """All figures of ``predictions``.

    Args:
        predictions: of N pictures.
        classes: names of the K outputs.
        good_classes: those that mean that the piece is good.
        threshold: see the top of this module; 0.5 by default.
        worst: how many mistakes are listed at most.

    Raises:
        NoPicturesError: no picture has a class.
        ClassError: a good class is not among the classes.

    """
    from torchmetrics.functional import classification  # takes seconds to import

    known = predictions.labels >= 0
    truth = torch.from_numpy(predictions.labels[known])
    probabilities = torch.from_numpy(predictions.probabilities[known])
    if not len(truth):
        raise NoPicturesError("no picture with a class to measure by", remedy="label some pictures")
    count = max(2, len(classes))
    called = probabilities.argmax(1)
    support = torch.bincount(truth, minlength=count)
    present = support > 0
    matrix = classification.multiclass_confusion_matrix(called, truth, num_classes=count)
    per_class = {
        name: function(called, truth, num_classes=count, average=None).double()
        for name, function in (
            ("precision", classification.multiclass_precision),
            ("recall", classification.multiclass_recall),
            ("f1", classification.multiclass_f1_score),
        )
    }
    of_truth = probabilities.gather(1, truth[:, None]).squeeze(1).double()
    line = line_figures(
        predictions,
        classes,
        good_classes=good_classes,
        threshold=DEFAULT_THRESHOLD if threshold is None else threshold,
    )
    return Evaluation(
        num_examples=len(truth),
        unlabelled=int((~known).sum()),
        accuracy=int(matrix.trace()) / len(truth),
        balanced_accuracy=float(per_class["recall"][present].mean()),
        precision=float(per_class["precision"][present].mean()),
        recall=float(per_class["recall"][present].mean()),
        f1=float(per_class["f1"][present].mean()),
        log_loss=float(-of_truth.clamp(min=SMALLEST_PROBABILITY).log().mean()),
        classes=[
            ClassMetrics(
                name=name,
                precision=float(per_class["precision"][place]) if int(matrix[:, place].sum()) else None,
                recall=float(per_class["recall"][place]) if present[place] else None,
                f1=float(per_class["f1"][place]) if present[place] else None,
                support=int(support[place]),
            )
            for place, name in enumerate(classes)
        ],
        confusion=matrix[: len(classes), : len(classes)].tolist(),
        line=line,
        mistakes=_mistakes(predictions, classes, good_classes, line.threshold)[:worst],
    )


def line_figures(
    predictions: Predictions, classes: Sequence[str], *, good_classes: Sequence[str] = (), threshold: float
) -> InspectionMetrics:
    """What would happen on the line at one threshold; call it for several to draw the trade-off.

    Raises:
        ClassError: a good class is not among the classes.

    """
    known = predictions.labels >= 0
    truth, probabilities = predictions.labels[known], predictions.probabilities[known]
    good = good_among(classes, good_classes)
    passed = _passes(probabilities, good, threshold)
    shows_good = good[truth]
    # Among defects the name given is the likeliest defect: the good classes' share has already had its say.
    named = np.where(good[None, :], -1.0, probabilities).argmax(1)
    return InspectionMetrics(
        threshold=threshold,
        has_good_class=bool(good.any()),
        defects=int((~shows_good).sum()),
        escapes=int((~shows_good & passed).sum()),
        good=int(shows_good.sum()),
        false_rejects=int((shows_good & ~passed).sum()) if good.any() else None,
        wrong_alarms=int((~shows_good & ~passed & (named != truth)).sum()),
    )


def good_among(classes: Sequence[str], good_classes: Sequence[str]) -> np.ndarray:
    """Which of the classes (K,) mean a good piece; raises ClassError for one that is not among them."""
    for name in good_classes:
        if name not in classes:
            raise ClassError("a good class is not among the classes", seen=name, accepted=", ".join(classes))
    return np.asarray([name in good_classes for name in classes], dtype=bool)


def _passes(probabilities: np.ndarray, good: np.ndarray, threshold: float) -> np.ndarray:
    """Which pictures (N,) would pass: see the top of this module."""
    if not good.any():
        return np.asarray(probabilities.max(1) < threshold, dtype=bool)
    return np.asarray(probabilities[:, good].sum(1) >= threshold, dtype=bool)


def _mistakes(
    predictions: Predictions, classes: Sequence[str], good_classes: Sequence[str], threshold: float
) -> List[Misclassification]:
    good = good_among(classes, good_classes)
    passed = _passes(predictions.probabilities, good, threshold)
    called = predictions.probabilities.argmax(1)
    found = []
    for place in np.flatnonzero((predictions.labels >= 0) & (called != predictions.labels)):
        truth = int(predictions.labels[place])
        found.append(
            Misclassification(
                name=predictions.names[place],
                label=classes[truth],
                predicted=classes[int(called[place])],
                probability=float(predictions.probabilities[place, called[place]]),
                probability_of_truth=float(predictions.probabilities[place, truth]),
                escape=bool(passed[place] and not good[truth]),
            )
        )
    return sorted(found, key=lambda mistake: (mistake.probability_of_truth, mistake.name))
