"""Gain of each plant from joining, as rows of numbers for pages and tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from fedsim.report.model import Arm, Comparison, weakest_class
from fedspect.training.metrics import Evaluation


@dataclass(frozen=True)
class GainRow:
    """One way of training against the federation."""

    name: str
    pictures: int
    accuracy: float
    gain: float
    """The federation's accuracy less this one's."""
    weakest: Optional[tuple[str, float]]
    """The class that it finds least well, and the share of it that it finds."""
    lacking: Optional[tuple[float, float]] = None
    """Of classes of which the plant has no picture, the mean share found: by the plant alone, by the federation."""


@dataclass(frozen=True)
class Cell:
    """The share of a class that one way of training finds."""

    recall: Optional[float]
    pictures: Optional[int] = None
    """Pictures of the class that the plant had to learn from, where that is known."""


@dataclass(frozen=True)
class RecallRow:
    """One class in the table of what each finds."""

    name: str
    alone: list[Cell]
    federation: Optional[float]
    together: Optional[float]


def gain_rows(comparison: Comparison) -> list[GainRow]:
    """A row for each plant alone, then one for all pictures in one place."""
    rows = [_row(comparison, arm, f"{arm.name} alone") for arm in comparison.alone]
    if comparison.together is not None:
        rows.append(_row(comparison, comparison.together, "all pictures in one place"))
    return rows


def recall_rows(comparison: Comparison) -> list[RecallRow]:
    """A row for each class."""
    together = comparison.together
    return [
        RecallRow(
            name=figures.name,
            alone=[
                Cell(arm.evaluation.classes[place].recall, _pictures(comparison, arm, figures.name))
                for arm in comparison.alone
            ],
            federation=figures.recall,
            together=None if together is None else together.evaluation.classes[place].recall,
        )
        for place, figures in enumerate(comparison.federation.evaluation.classes)
    ]


def _row(comparison: Comparison, arm: Arm, name: str) -> GainRow:
    joined = comparison.federation.evaluation
    lacks = {each.name for each in joined.classes if _pictures(comparison, arm, each.name) == 0}
    alone, together = _mean_recall(arm.evaluation, lacks), _mean_recall(joined, lacks)
    return GainRow(
        name=name,
        pictures=arm.pictures,
        accuracy=arm.evaluation.accuracy,
        gain=joined.accuracy - arm.evaluation.accuracy,
        weakest=weakest_class(arm.evaluation),
        lacking=None if alone is None or together is None else (alone, together),
    )


def _pictures(comparison: Comparison, arm: Arm, label: str) -> Optional[int]:
    held = comparison.counts.get(arm.name)
    return None if held is None else held.get(label, 0)


def _mean_recall(evaluation: Evaluation, labels: set[str]) -> Optional[float]:
    recalls = [each.recall for each in evaluation.classes if each.name in labels and each.recall is not None]
    return sum(recalls) / len(recalls) if recalls else None
