"""What happens in a run, as frozen facts: live views, logs and tests consume these and nothing else.

An event is handed out after what it tells is true: ``RoundClosed`` when the round is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from fedserver.rounds.history import Evaluation, PlantResult, RoundRecord
from fedspect.report.formatting import plural


@dataclass(frozen=True)
class Event:
    """The parent of all events; ``str(event)`` is a sentence for a log."""

    def as_dict(self) -> dict[str, Any]:
        """The event for a JSON line."""
        return {"event": type(self).__name__, **_plain(self)}


@dataclass(frozen=True)
class RoundContext:
    """A round's facts, fixed before its first message leaves."""

    run_id: str
    round: int
    total_rounds: int
    version: str
    """The head that plants work from: what the round before made."""
    train: bool
    """``False`` for the closing evaluation after the last round."""

    def __str__(self) -> str:
        """The round's name in a sentence."""
        if self.round == 0:
            return "the closed form"
        return f"round {self.round} of {self.total_rounds}" if self.train else "the closing evaluation"


@dataclass(frozen=True)
class PlantJoined(Event):
    """A plant was seen and described itself."""

    plant: str
    pictures: int

    def __str__(self) -> str:
        """Say it."""
        return f"{self.plant} is here with {self.pictures} training pictures"


@dataclass(frozen=True)
class RoundStarted(Event):
    """The plants have their tasks."""

    context: RoundContext
    plants: tuple[str, ...]

    def __str__(self) -> str:
        """Say it."""
        return f"{self.context} begins with {', '.join(self.plants)}"


@dataclass(frozen=True)
class PlantReplied(Event):
    """An answer is on disk; whether its update is used is decided when the round closes."""

    context: RoundContext
    result: PlantResult

    def __str__(self) -> str:
        """Say it."""
        late = f", {self.result.late_by} rounds late" if self.result.late_by else ""
        return f"{self.result.plant} answered in {self.context}{late}"


@dataclass(frozen=True)
class PlantRefused(Event):
    """Something of a plant's must not touch the model."""

    plant: str
    round: int
    kind: str
    """``update``: a check refused it. ``late``: it came too late. ``joining``: a node does not fit."""
    reason: str
    in_a_row: int = 0
    """Refused updates in a row, this one included."""
    quarantined: bool = False
    """Whether the plant is left out from now on, until an operator looks."""

    def __str__(self) -> str:
        """Say it."""
        aside = "; the plant is quarantined until an operator looks" if self.quarantined else ""
        return f"{self.plant} refused in round {self.round}: {self.reason}{aside}"


@dataclass(frozen=True)
class PlantLost(Event):
    """A plant that was asked does not answer in this round: it is gone, or its work failed."""

    plant: str
    round: int
    reason: str

    def __str__(self) -> str:
        """Say it."""
        where = f"in round {self.round}" if self.round else "about the closed form"
        return f"{self.plant} gave no answer {where}: {self.reason}"


@dataclass(frozen=True)
class Waiting(Event):
    """Too few plants; nothing goes on before more come. Handed out once for each new text."""

    round: int
    present: int
    needed: int
    text: str

    def __str__(self) -> str:
        """Say it."""
        return self.text


@dataclass(frozen=True)
class RoundClosed(Event):
    """The round is on disk."""

    record: RoundRecord
    seconds_left: float
    """Until the last round closes, if the others take as long as the mean of those before."""

    def __str__(self) -> str:
        """Say it."""
        used = sum(result.weight > 0 for result in self.record.plants)
        return f"round {self.record.round} closed with {plural(used, 'update')} after {self.record.seconds:.1f} s"


@dataclass(frozen=True)
class ClosedFormFound(Event):
    """The run begins at a linear discriminant, which is on disk."""

    plants: int
    accuracy: float | None
    """On the plants' evaluation pictures; ``None`` where they keep none."""
    seconds: float
    bytes_up: int
    """Of all plants' statistics."""

    def __str__(self) -> str:
        """Say it."""
        reached = "" if self.accuracy is None else f", {self.accuracy:.1%} right on evaluation pictures"
        return f"closed form from the statistics of {plural(self.plants, 'plant')}{reached}, {self.seconds:.1f} s"


@dataclass(frozen=True)
class ModelTested(Event):
    """The model that a round made was measured on a fixed test set; only simulations have one."""

    round: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class RunFinished(Event):
    """No round is left, or none made the model better for long enough."""

    rounds: int
    version: str
    stopped_early: bool
    evaluation: Evaluation | None
    """Of the last version, by all plants together."""

    def __str__(self) -> str:
        """Say it."""
        early = ", early because the model got no better" if self.stopped_early else ""
        return f"the run is finished after {plural(self.rounds, 'round')}{early}; version {self.version[:12]}"


OnEvent = Callable[[Event], None]


def event_from(row: Mapping[str, Any]) -> Event | None:
    """The event that ``as_dict`` made the row of; ``None`` for a row that is none, or of another version."""
    kind = next((each for each in Event.__subclasses__() if each.__name__ == row.get("event")), None)
    if kind is None:
        return None
    content = {field.name: row[field.name] for field in fields(kind) if field.name in row}
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError:
        return None


def ignore(event: Event) -> None:
    """Do nothing with an event."""


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (Event, RoundContext)):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return list(value) if isinstance(value, tuple) else value
