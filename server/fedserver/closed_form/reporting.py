"""What reports say of a run's closed form: how it came about, and what plants bring each other."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from fedserver.closed_form.store import ClosedFormRecord
from fedspect.report.formatting import percent, plural

MOST_SENTENCES = 3


class GainRow(BaseModel):
    """On one plant's evaluation pictures: shares of right answers."""

    model_config = ConfigDict(frozen=True)

    plant: str
    evaluated: int
    alone: float
    """Of the closed form of its own pictures."""
    together: float
    without: dict[str, float]
    """Of the closed form of all but each plant."""


class ClosedFormSummary(BaseModel):
    """The closed form, for a page."""

    model_config = ConfigDict(frozen=True)

    sentences: list[str]
    gains: list[GainRow]


def summary(record: ClosedFormRecord) -> ClosedFormSummary:
    """What there is to say of a closed form."""
    pictures = sum(sum(counts.values()) for counts in record.plants.values())
    reached = "" if record.accuracy is None else f", {percent(record.accuracy)} right on evaluation pictures"
    first = (
        f"The run begins at a closed form from sums over {plural(pictures, 'picture')} of "
        f"{plural(len(record.plants), 'plant')}, in one exchange of {record.bytes_up / 1e6:.1f} MB and "
        f"{record.seconds:.0f} s{reached}."
    )
    rows = [
        GainRow(
            plant=plant,
            evaluated=each.evaluated,
            alone=each.alone.get(plant, 0) / each.evaluated,
            together=each.together / each.evaluated,
            without={name: right / each.evaluated for name, right in each.without.items()},
        )
        for plant, each in (record.gains or {}).items()
        if each.evaluated
    ]
    return ClosedFormSummary(sentences=[first, *record.notes, *_brought(rows)], gains=rows)


def _brought(rows: list[GainRow]) -> list[str]:
    """The largest gains, in the words of somebody who looks after plants."""
    found = [
        (row.together - right, name, row.plant)
        for row in rows
        for name, right in row.without.items()
        if name != row.plant and row.together > right
    ]
    best = sorted(found, key=lambda each: (-each[0], each[1], each[2]))[:MOST_SENTENCES]
    return [
        f"{name} brought {100 * gain:.0f} points to {plant}." for gain, name, plant in best if gain >= 0.005
    ]
