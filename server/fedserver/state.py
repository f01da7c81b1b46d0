"""What a run is and where it stands: what ``store`` puts on disk and the round loop goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from fedserver.round_settings import RoundSettings
from fedspect.update.downlink import Served
from fedspect.update.exchange import ContentHash, RunId
from fedspect.update.schema import Arrays

FORMAT_VERSION = 1


class RunFacts(BaseModel):
    """What a run is; only ``rounds`` may be replaced, by a restart with other settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    run_id: RunId
    """Survives restarts; plants recognise a repeated round by it."""
    base_hash: ContentHash
    """The base model that every plant must hold."""
    classes: list[str]
    """The federation's classes, in order."""
    freeze_levels: int | None = None
    """Levels of the base model that stand still; not set: what the base model recommends."""
    seed: int
    strategy: str
    strategy_options: dict[str, Any]
    rounds: RoundSettings


class PlantStanding(BaseModel):
    """What the server remembers of a plant from round to round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refusals: int = 0
    """Refused updates in a row."""
    set_aside: bool = False
    """Left out until an operator looks."""
    last_refusal: str | None = None
    last_round: int | None = None
    """The last round that used an update of this plant."""
    pictures: int | None = None
    """Training pictures when it first described itself in this run, or when an operator last let it in."""


@dataclass(frozen=True)
class RunState:
    """Where a run stands after a round."""

    round: int
    served: Served
    moments: Arrays = field(default_factory=dict)
    """What the strategy carries on (``strategies.strategy_state``)."""
    plants: Mapping[str, PlantStanding] = field(default_factory=dict)
