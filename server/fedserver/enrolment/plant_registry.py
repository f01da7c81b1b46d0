"""Plant registry: who was invited, who joined with which key, who was revoked.

One JSON file, changed under a lock because `fedserver start`, `invite` and `plants revoke` are different
processes. It is the only truth about plants: Flower's own list of node keys is made from it at every start.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedspect import files
from fedspect.errors import DamagedFileError, EnrolmentError
from fedspect.locking import exclusive


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Invitation(_Entry):
    """A join token as headquarters stores it: never the secret itself. Times are seconds since 1970."""

    token_id: str
    secret_hash: str
    """SHA-256 of the secret; it is random and long, so that a plain hash gives nothing away."""
    created: float
    expires: float
    used: Optional[float] = None
    used_by: Optional[str] = None
    """Fingerprint of the key that used it."""
    withdrawn: bool = False


class RegisteredPlant(_Entry):
    """One plant, from its first invitation on; a revoked one stays, so that its history keeps its name."""

    name: str
    state: Literal["invited", "joined", "left", "revoked"] = "invited"
    public_key: Optional[str] = None
    """PEM; the private key never left the device."""
    joined: Optional[float] = None
    seen: Optional[float] = None
    """When it last spoke to the enrolment service."""
    software: str = ""
    report: Dict[str, Any] = Field(default_factory=dict)
    """The site report: pictures per class and what was found wrong."""
    invitations: List[Invitation] = Field(default_factory=list)

    @property
    def key_fingerprint(self) -> Optional[str]:
        """SHA-256 of the public key, hexadecimal."""
        return None if self.public_key is None else fingerprint_of(self.public_key)


class PlantRecords(_Entry):
    """All plants by name."""

    format_version: Literal[1] = 1
    plants: Dict[str, RegisteredPlant] = Field(default_factory=dict)

    def by_key(self, public_key: str) -> Optional[RegisteredPlant]:
        """The plant that owns this key, or owned it."""
        return next((plant for plant in self.plants.values() if plant.public_key == public_key), None)

    def joined(self) -> List[RegisteredPlant]:
        """The plants that may take part, by name."""
        return sorted((p for p in self.plants.values() if p.state == "joined"), key=lambda plant: plant.name)

    def named(self, name: str) -> RegisteredPlant:
        """The plant of that name.

        Raises:
            EnrolmentError: there is none.

        """
        if name not in self.plants:
            raise EnrolmentError(
                "there is no such plant",
                seen=name,
                accepted=", ".join(sorted(self.plants)) or None,
                remedy="see `fedserver plants`",
            )
        return self.plants[name]

    def admissible(self, name: str) -> RegisteredPlant:
        """The plant of that name, if it may take part.

        Raises:
            EnrolmentError: there is none, or it has left or was revoked.

        """
        plant = self.named(name)
        if plant.state in ("left", "revoked"):
            raise EnrolmentError(
                f"{name} {'has left' if plant.state == 'left' else 'was revoked'}",
                remedy=f"invite it: `fedserver invite {name}`",
            )
        return plant


class PlantRegistry:
    """The registry's folder in a workspace."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "plants.json"
        self._lock = folder / "plants.lock"

    def create(self) -> None:
        """Make an empty registry, unless there is one."""
        if not self.path.exists():
            self._write(PlantRecords())

    def read(self) -> PlantRecords:
        """The current registry.

        Raises:
            DamagedFileError: the file is not a registry.

        """
        try:
            return PlantRecords.model_validate(files.read_json(self.path))
        except FileNotFoundError:
            return PlantRecords()
        except ValidationError as error:
            raise DamagedFileError(
                "the registry of plants cannot be read",
                seen=f"{self.path}: {error.errors()[0]['msg']}",
                remedy="restore it from a backup of the workspace",
            ) from error

    def stamp(self) -> object:
        """A value that differs after every change; files are replaced, so each change is a new file."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    @contextlib.contextmanager
    def change(self) -> Iterator[PlantRecords]:
        """The registry for changing: written when the block ends, left alone when it raises."""
        with exclusive(self._lock):
            records = self.read()
            yield records
            self._write(records)

    def _write(self, records: PlantRecords) -> None:
        files.write_json(self.path, records.model_dump(), mode=0o600)


def fingerprint_of(public_key: str) -> str:
    """SHA-256 of a public key's PEM form, hexadecimal."""
    return hashlib.sha256(public_key.encode("ascii", "replace")).hexdigest()
