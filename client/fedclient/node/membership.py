"""Membership record: what a plant keeps of the federation that it has joined."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from pydantic import BaseModel, ConfigDict, Field


class Membership(BaseModel):
    """``plant.json``: everything that rejoining without a token needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plant: str
    federation: str
    fingerprint: str
    """SHA-256 of the authority's certificate, hexadecimal."""
    enrolment_addresses: List[str]
    fleet_addresses: List[str]
    classes: List[str]
    aliases: Dict[str, str] = Field(default_factory=dict)
    base_hash: str
    settings: Dict[str, Any] = Field(default_factory=dict)
    """What the federation prescribes for training."""
    data: str
    """The folder or list with the plant's pictures."""
    worker_python: Optional[str] = None
    """The interpreter that has torch; not set: the node's own."""
    node_id: Optional[int] = None
    """The number that the server gave this device last time."""
