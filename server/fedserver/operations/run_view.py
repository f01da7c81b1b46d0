"""View model of a run, built from its events: the state behind the live view, and the plain lines instead of it.

Names and reasons come from plants and are kept as text without control characters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from fedserver.rounds.events import (
    Event,
    ModelTested,
    PlantLost,
    PlantRefused,
    PlantReplied,
    RoundClosed,
    RoundStarted,
    RunFinished,
    Waiting,
)
from fedspect.report.formatting import duration, natural_order, number, percent, plural, size

MOST_ROWS = 16  # plants shown at once; those with trouble and those at work come first
MOST_REMARKS = 5
_ORDER = {"refused": 0, "lost": 0, "working": 1, "answered": 2, "used": 3, "late": 3, "": 4}


@dataclass
class PlantProgress:
    """One plant's row."""

    name: str
    state: str = ""
    pictures: Optional[int] = None
    accuracy: Optional[float] = None
    loss: Optional[float] = None
    bytes_up: Optional[int] = None
    seconds: Optional[float] = None


@dataclass
class RunView:
    """State of the view; ``take`` is called with each event."""

    rounds: int
    title: str = ""
    plants: dict[str, PlantProgress] = field(default_factory=dict)
    phase: str = ""
    """What is going on: ``round 3 of 15``."""
    closed: int = 0
    tested: list[float] = field(default_factory=list)
    """The accuracies on the test pictures, one for each model that was measured."""
    received: Optional[float] = None
    """The plants' accuracy with the model that they received last."""
    train_loss: Optional[float] = None
    traffic: int = 0
    seconds_left: Optional[float] = None
    waiting: str = ""
    remarks: list[str] = field(default_factory=list)
    """Refusals and losses, the latest last."""
    finished: bool = False

    def take(self, event: Event) -> Optional[str]:
        """Apply an event; returns the line to print where there is no live view, if any."""
        if isinstance(event, RoundStarted):
            self._started(event)
        elif isinstance(event, PlantReplied):
            self._replied(event)
        elif isinstance(event, (PlantRefused, PlantLost)):
            self.row(event.plant).state = "refused" if isinstance(event, PlantRefused) else "lost"
            self.remarks = [*self.remarks, plain(str(event))][-MOST_REMARKS:]
            return plain(str(event))
        elif isinstance(event, Waiting):
            self.waiting = plain(str(event))
            return f"waiting: {self.waiting}"
        elif isinstance(event, RoundClosed):
            return self._closed(event)
        elif isinstance(event, ModelTested):
            self.tested.append(event.accuracy)
            return (
                f"round {event.round} of {self.rounds}: {percent(event.accuracy)} right on the test pictures"
            )
        elif isinstance(event, RunFinished):
            self.finished, self.seconds_left, self.waiting = True, None, ""
            if event.evaluation is not None:
                self.received = event.evaluation.mean.get("accuracy", self.received)
            return str(event)
        return None

    def row(self, plant: str) -> PlantProgress:
        """The plant's row, made when first needed."""
        return self.plants.setdefault(plant, PlantProgress(plain(plant)))

    def rows(self) -> list[PlantProgress]:
        """The rows to show, in natural order: of too many plants those that matter most now."""
        chosen = sorted(
            self.plants.values(), key=lambda row: (_ORDER.get(row.state, 2), natural_order(row.name))
        )
        return sorted(chosen[:MOST_ROWS], key=lambda row: natural_order(row.name))

    def _started(self, event: RoundStarted) -> None:
        self.phase, self.rounds = str(event.context), event.context.total_rounds
        self.waiting = ""
        for name in event.plants:
            self.row(name).state = "working"

    def _replied(self, event: PlantReplied) -> None:
        result, row = event.result, self.row(event.result.plant)
        row.state = "answered"
        row.accuracy = result.metrics.get("accuracy", row.accuracy)
        if event.context.train:
            row.pictures, row.loss, row.bytes_up = result.num_examples, result.train_loss, result.bytes_up
            row.seconds = result.seconds.get("total")

    def _closed(self, event: RoundClosed) -> str:
        record = event.record
        for result in record.plants:
            self.row(result.plant).state = "late" if result.late_by else "used"
        for refusal in record.refused:
            self.row(refusal.plant).state = "refused"
        self.closed = record.round
        self.train_loss, self.seconds_left = record.train_loss, event.seconds_left
        self.traffic += record.bytes_up + record.bytes_down
        if record.evaluation is not None:
            self.received = record.evaluation.mean.get("accuracy", self.received)
        parts = [
            plural(sum(result.weight > 0 for result in record.plants), "update"),
            f"training loss {number(record.train_loss)}",
            size(record.bytes_up + record.bytes_down),
            duration(record.seconds),
        ]
        if event.seconds_left > 0:
            parts.append(f"about {duration(event.seconds_left)} left")
        return f"round {record.round} of {self.rounds}: {', '.join(parts)}"


def plain(text: str) -> str:
    """The text without line breaks, tabs or control characters."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
