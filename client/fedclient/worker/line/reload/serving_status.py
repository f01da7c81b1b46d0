"""Serving status: the deployment that answers, and what keeps it from the one that it should answer with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

from fedclient.worker.deployments import Deployment
from fedspect.errors import EngineError


@dataclass(frozen=True)
class ServingStatus:
    """Immutable status; changes replace it."""

    running: Optional[Deployment] = None
    """What answers."""
    problem: Optional[str] = None
    """Why that is not the current deployment."""
    mistake: Optional[str] = None
    """Why ``line.toml`` is not in force as it stands: the settings before it are."""
    unknown: Tuple[str, ...] = ()
    """Classes that the settings name and the running version does not know; nothing passes as one of them."""
    broken: Optional[str] = None
    """Why what runs gives no answers any more; the process ends."""
    at: float = field(default_factory=time.time, compare=False)
    """Since when, in seconds since 1970."""

    @property
    def trouble(self) -> Optional[str]:
        """What a person should look at."""
        unknown = (
            f"line.toml names what this version does not know: {', '.join(self.unknown)}"
            if self.unknown
            else ""
        )
        return "; ".join(filter(None, (self.broken, self.problem, self.mistake, unknown))) or None

    def __str__(self) -> str:
        answers = "no version" if self.running is None else f"version {self.running.number}"
        return "; ".join(filter(None, (f"answers: {answers}", self.trouble)))

    def check(self) -> None:
        """Raise ``EngineError`` where what runs gives no answers any more."""
        if self.broken is not None:
            raise EngineError(
                "the engine gives no answers any more",
                seen=self.broken,
                remedy="start again; if that does not help: `fedclient engines rollback`, `fedclient doctor`",
            )

    def as_dict(self) -> Dict[str, Any]:
        """What stands in ``serve.json``."""
        return {
            "version": None if self.running is None else self.running.version,
            "number": None if self.running is None else self.running.number,
            "problem": self.trouble,
            "at": self.at,
        }


def in_words(error: Exception) -> str:
    """An error on one line."""
    return " ".join(str(error).split()) or type(error).__name__
