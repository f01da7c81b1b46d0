"""How a run's closed form is found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedspect.settings import Settings

Orientations = Literal["as-it-lies", "half-turn", "mirrored", "all", "auto"]


class ClosedFormSettings(Settings):
    """The closed form of a run."""

    orientations: Orientations = "as-it-lies"
    """Which orientations of a picture count: as-it-lies; half-turn: and turned by 180 degrees; mirrored: and those
    mirrored; all: and the quarter turns; auto: all are summed, and the plants' evaluation pictures decide. Where
    pieces lie one way under the camera, turning throws information away; each orientation costs a look at every
    picture."""
    asked: float = Field(0.01, gt=0.0, le=0.5)
    """The share of known pictures that may be unlike all training pictures: beyond the distance that so many
    held-out pictures exceed, the line asks."""
