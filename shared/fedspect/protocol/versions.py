"""A published version of the model, as both sides mean it: its two files, its card, and what a plant reports.

A version is a head: the unfrozen levels, float32, by full key of the network's ``state_dict`` (without the
running statistics where these stay with the plants). With the base model that it names it is a whole
network. ``head.safetensors`` holds the numbers, ``card.json`` says what they are.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Final, List, Optional, Tuple

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Literal

from fedspect.protocol.limits import LARGEST_DEPLOYMENT_REPORT, MOST_CLASSES

HEAD_FILE: Final = "head.safetensors"
CARD_FILE: Final = "card.json"
VERSION_FILES: Final[Tuple[str, str]] = (HEAD_FILE, CARD_FILE)
"""The files of a version, in the order in which they are fetched: a card says that the head is there."""

FORMAT_VERSION: Final = 1
_HASH = "^[0-9a-f]{64}$"

BatchNorm = Literal["average", "per-plant"]
"""Whether running statistics of batch norms are averaged with the weights, or stay with each plant (FedBN)."""
Outcome = Literal["activated", "refused", "failed", "rolled-back", "drifting", "as-learned"]


class MeasuredAccuracy(BaseModel):
    """How good a version is on the plants' evaluation pictures."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    evaluated: int = 0
    """Pictures of all plants together; 0: nobody has evaluated it."""
    mean: Dict[str, float] = Field(default_factory=dict)
    """Each metric, weighted by the plants' pictures."""
    plants: Dict[str, Dict[str, float]] = Field(default_factory=dict)
    """Each plant's metrics."""


class VersionCard(BaseModel):
    """``card.json`` of a published version."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format_version: int = FORMAT_VERSION
    number: int = Field(ge=1)
    """Counts up from 1 at each headquarters."""
    content_hash: str = Field(pattern=_HASH)
    """The head's hash (``fedspect.update.schema.version_of``): the version's name."""
    parent: Optional[str] = Field(None, pattern=_HASH)
    """The version published before it on the same base model."""
    base_hash: str = Field(pattern=_HASH)
    """The base model that the head belongs to."""
    architecture: str
    classes: List[str] = Field(min_length=1, max_length=MOST_CLASSES)
    """Names of the classifier's outputs, in order."""
    freeze_levels: int = Field(ge=0)
    """The frozen levels of the base model; the head is the rest."""
    closed_form: bool = False
    """Whether the head has a linear discriminant on the frozen levels' taps."""
    batch_norm: BatchNorm = "average"
    """"per-plant": the head has no running statistics, each plant has its own."""
    run: str
    """The run that made it."""
    rounds: int = Field(ge=0)
    """The round that made it."""
    metrics: MeasuredAccuracy = Field(default_factory=MeasuredAccuracy)
    """What the plants measured of it."""
    before: MeasuredAccuracy = Field(default_factory=MeasuredAccuracy)
    """What they measured of the model that the run began with."""
    created: str
    """UTC, ISO 8601."""
    note: str = ""
    """What the operator wrote beside it."""


class DeploymentReport(BaseModel):
    """What became of a version at one plant."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: str = Field(pattern=_HASH)
    number: int = Field(ge=0)
    outcome: Outcome
    """"activated": the line runs it. "refused": the plant's own pictures speak against it. "failed": it could
    not be built. "rolled-back": the plant went back to this version. "drifting": the pictures that the line
    sees with it are others than it learned from; "as-learned": they are such again.
    """
    reasons: List[str] = Field(default_factory=list, max_length=50)
    figures: Dict[str, Any] = Field(default_factory=dict)
    """What the gate measured."""
    seconds: float = Field(0.0, ge=0.0, allow_inf_nan=False)

    def as_text(self, limit: int = LARGEST_DEPLOYMENT_REPORT) -> str:
        """The report as JSON of at most ``limit`` characters: the largest figures give way, then the last reasons."""
        report = self
        while len(text := json.dumps(report.model_dump(mode="json"))) > limit:
            sizes = {name: len(json.dumps(value)) for name, value in report.figures.items()}
            if sizes:
                largest = max(sizes, key=lambda name: sizes[name])
                kept = {name: value for name, value in report.figures.items() if name != largest}
                report = report.model_copy(update={"figures": kept})
            elif report.reasons:
                report = report.model_copy(update={"reasons": report.reasons[:-1]})
            else:
                break
        return text
