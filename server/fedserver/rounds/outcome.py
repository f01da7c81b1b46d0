"""Run outcome: how the process with the rounds ended, which it writes into ``status.json`` for who starts it.

Flower says of a ServerApp that it completed or failed, not why. Whether it is worth another start depends on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedserver.storage.runs import read_status
from fedspect.errors import (
    FedspectError,
    ModelError,
    QuorumError,
    SettingsError,
    StorageError,
    WorkspaceError,
    error_from,
)

STOPPED = "stopped"
FINAL = (SettingsError, ModelError, StorageError, WorkspaceError, QuorumError)
"""What another start cannot mend, because a person has to, or because it was asked for (``give_up``)."""


@dataclass(frozen=True)
class RunOutcome:
    """How the process ended, as it says itself; one that was killed says nothing."""

    text: str = "the ServerApp's process is gone"
    error: FedspectError | None = None

    @classmethod
    def read(cls, run_folder: Path) -> RunOutcome:
        """What was said last in the run's folder."""
        status = read_status(run_folder)
        if status.get("state") != STOPPED:
            return cls()
        return cls(str(status.get("text") or cls.text), error_from(status.get("error")))

    def check(self) -> None:
        """Raise the error that ended it if another start would end the same way."""
        if isinstance(self.error, FINAL):
            raise self.error


def last_words(error: BaseException) -> dict[str, Any]:
    """What a process that ends by this error puts into the status: a sentence, and the error if it is ours."""
    if isinstance(error, FedspectError):
        return {"text": str(error), "error": error.as_dict()}
    return {"text": f"unexpected {type(error).__name__}: {error}".rstrip(": ")}
