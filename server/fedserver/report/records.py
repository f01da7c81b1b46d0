"""Records of a federation's report: the content of ``report.json``.

Shares are between 0 and 1, times in seconds, sizes in bytes.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from fedserver.closed_form.reporting import ClosedFormSummary

_RECORD = ConfigDict(frozen=True, extra="forbid")


class Point(BaseModel):
    """One plant's evaluation of the model after a round."""

    model_config = _RECORD

    round: int
    accuracy: float | None
    loss: float | None


class PlantRow(BaseModel):
    """One plant, over the whole run."""

    model_config = _RECORD

    plant: str
    state: str
    pictures: int = 0
    """Training pictures, as it last said."""
    evaluated: int = 0
    """Evaluation pictures of its own, as it last said."""
    before: float | None = None
    """Accuracy of the first model that it was given ..."""
    before_round: int | None = None
    """... which is the model after this round: 0 unless it came later."""
    after: float | None = None
    """Accuracy of the last model that it measured."""
    after_round: int | None = None
    gain: float | None = None
    updates: int = 0
    """Rounds that used an update of it."""
    late: int = 0
    refused: int = 0
    lost: int = 0
    """Rounds in which it was asked and gave nothing."""
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float | None = None
    """Its work in a round, the median."""
    line: int | None = None
    """The version that its line runs, as far as it has said."""
    outcome: str = ""
    """What became of the version that it was given last."""
    reasons: list[str] = Field(default_factory=list)
    course: list[Point] = Field(default_factory=list)


class RoundRow(BaseModel):
    """One closed round."""

    model_config = _RECORD

    round: int
    started: str
    seconds: float
    updates: int
    accuracy: float | None
    """Of the model that the round made, at all plants that measured it."""
    loss: float | None
    train_loss: float | None
    bytes_up: int
    bytes_down: int


class Trouble(BaseModel):
    """A time when a plant's update did not count in full."""

    model_config = _RECORD

    round: int
    plant: str
    kind: str
    """``late``, ``refused`` or ``lost``."""
    reason: str


class VersionRow(BaseModel):
    """One published version."""

    model_config = _RECORD

    number: int
    content_hash: str
    run: str
    round: int
    created: str
    accuracy: float | None
    retired: str
    """Why it was retired; empty when it was not."""
    lines: list[str]
    """Plants whose lines run it."""


class FederationReport(BaseModel):
    """``report.json``: all that the page shows."""

    model_config = _RECORD

    format_version: int = 1
    federation: str
    run: str
    state: str
    """``finished``, ``stopped``, or what the rounds are doing."""
    text: str
    written: str
    planned: int
    classes: list[str]
    base_hash: str
    strategy: str
    encoding: str
    batch_norm: str
    before: float | None
    """Accuracy of what the run began with, at all plants."""
    loss_before: float | None
    after: float | None
    """Of the last model that was measured."""
    closed_form: ClosedFormSummary | None = None
    """What the run begins at, where that is a closed form."""
    rounds: list[RoundRow]
    plants: list[PlantRow]
    troubles: list[Trouble]
    versions: list[VersionRow]
    notes: list[str]
    """What the aggregation and the plants had to say, each once."""
