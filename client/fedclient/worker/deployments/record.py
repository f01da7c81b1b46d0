"""Deployment record: a published version as this device runs it, and an entry of the history."""

from __future__ import annotations

import hashlib
import time
from typing import Any, Dict, List, Literal, Mapping, Optional, Tuple

from pydantic import BaseModel, ConfigDict, Field

Event = Literal["added", "activated", "rolled back", "refused", "failed", "retired"]
DeploymentState = Literal["passed", "refused", "retired"]


class Deployment(BaseModel):
    """A version with the engines that were built of it.

    ``engines`` holds the engine store's ids: {"backbone": id, "head": id}, or {"whole": id} where no level
    is frozen. ``figures`` is what the gate measured. ``activated_at`` (seconds since 1970), ``who`` and
    ``why`` tell of the activation that made it current; they are empty on one that is not current.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,99}$")
    version: str
    """The published head's hash, in hex."""
    number: int = Field(ge=0)
    """The version's number at headquarters."""
    classes: Tuple[str, ...]
    base_hash: str
    engines: Dict[str, str] = Field(min_length=1)
    bit_depth: Optional[int] = None
    """Of the camera, by which files of 16 bits are read; None where the plant's pictures have 8."""
    figures: Dict[str, Any] = Field(default_factory=dict)
    state: DeploymentState = "passed"
    """Whether the gate let it through; what it refused or headquarters retired is only activated by force."""
    reasons: Tuple[str, ...] = ()
    """Why it was refused or retired."""
    added_at: float = 0.0
    activated_at: float = 0.0
    who: str = ""
    why: str = ""


class Entry(BaseModel):
    """A line of the history: what happened to which version, who did it, why, and what was measured."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: float
    """Seconds since 1970."""
    event: Event
    version: str
    number: int
    id: Optional[str] = None
    """The deployment; none where the candidate was refused before it had engines."""
    before: Optional[str] = None
    """The deployment that was current until then."""
    who: str = ""
    why: str = ""
    forced: bool = False
    figures: Dict[str, Any] = Field(default_factory=dict)
    serial: int = 0
    """Counts the moves of the pointer; 0 where it was not moved."""


def entry_of(event: Event, deployment: Deployment, who: str, why: str, *, forced: bool = False) -> Entry:
    """A history entry, dated now."""
    return Entry(
        at=time.time(),
        event=event,
        version=deployment.version,
        number=deployment.number,
        id=deployment.id,
        who=who,
        why=why,
        forced=forced,
        figures=deployment.figures,
    )


def deployment_id(
    number: int, version: str, engines: Mapping[str, str], bit_depth: Optional[int] = None
) -> str:
    """Identifier from number, version and engines: the same candidate has the same one."""
    parts = [f"{part}={engines[part]}" for part in sorted(engines)]
    content = "\x1f".join([version, *parts, *([] if bit_depth is None else [f"bits={bit_depth}"])])
    return f"{number:04d}-{version[:12]}-{hashlib.sha256(content.encode('utf-8')).hexdigest()[:6]}"


class Pointer(BaseModel):
    """``current.json``: what the line runs, what it ran before, and the move that made it so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    current: str
    earlier: List[str] = Field(default_factory=list)
    """The deployments to go back to, the nearest last."""
    engines: List[str] = Field(default_factory=list)
    """Ids of engines that the store must keep: of the current deployment and the nearest earlier ones."""
    move: Entry
