"""Deployment records: candidates that have engines, a file each, ``deployments/records/<id>.json``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Container, List, Optional

from pydantic import ValidationError

from fedclient.worker.deployments.record import Deployment
from fedspect.errors import DamagedFileError, GateError
from fedspect.files import read_json, write_json

MOST_RECORDS = 50


class Records:
    """The records in ``folder``; writers hold the lock of ``Deployments``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, deployment_id: str) -> Deployment:
        """A deployment by its id.

        Raises:
            GateError: there is none of that name.
            DamagedFileError: its record is not what was written.

        """
        path = self._path(deployment_id)
        try:
            return Deployment.model_validate(read_json(path))
        except FileNotFoundError as error:
            known = ", ".join(each.id for each in self.list()) or None
            raise GateError("there is no such deployment", seen=deployment_id, accepted=known) from error
        except ValidationError as error:
            raise damaged(path, error) from error

    def passed(self, deployment_id: str) -> Optional[Deployment]:
        """The same, if it is there, whole, and neither refused nor retired."""
        with contextlib.suppress(GateError, DamagedFileError):
            deployment = self.get(deployment_id)
            if deployment.state == "passed":
                return deployment
        return None

    def list(self) -> List[Deployment]:
        """All of them, the oldest first; damaged ones are left out."""
        found = []
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError, DamagedFileError, ValidationError):
                found.append(Deployment.model_validate(read_json(path)))
        return sorted(found, key=lambda each: (each.added_at, each.id))

    def keep(self, record: Deployment) -> None:
        """Write one, over an earlier one of its id.

        Raises:
            StorageError: it cannot be written; the earlier one stays.

        """
        write_json(self._path(record.id), record.model_dump(mode="json"))

    def forget_old(self, reachable: Container[str]) -> None:
        """Those beyond ``MOST_RECORDS`` go, the oldest first, but none that is ``reachable``."""
        old = [each for each in self.list() if each.id not in reachable]
        for each in old[: max(0, len(old) - MOST_RECORDS)]:
            with contextlib.suppress(OSError):
                self._path(each.id).unlink()

    def _path(self, deployment_id: str) -> Path:
        return self.folder / f"{Path(deployment_id).name}.json"


def damaged(path: Path, error: ValidationError) -> DamagedFileError:
    """The error for a record or pointer that cannot be read."""
    return DamagedFileError(
        "what this device knows of its engines cannot be read",
        seen=f"{path}: {error.errors()[0]['msg']}",
        remedy="`fedclient engines list` shows what can be activated; activating one mends it",
    )
