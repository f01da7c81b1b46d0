"""Progress and result of a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np


@dataclass(frozen=True)
class ProgressEvent:
    """One step of something long.

    ``stage`` is "features" (the frozen levels answer), "training" (one epoch's batches), "validation" or
    "prediction".
    """

    stage: str
    done: int
    total: int
    loss: Optional[float] = None
    epoch: Optional[int] = None


Progress = Callable[[ProgressEvent], None]


def unheard(event: ProgressEvent) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class EpochReport:
    """One epoch: its number in the whole schedule, mean loss and accuracy while training, and what
    validation said.
    """

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    validation_accuracy: Optional[float] = None
    validation_loss: Optional[float] = None


@dataclass(frozen=True)
class FitReport:
    """What one call of ``Trainer.fit`` did."""

    num_examples: int
    counts: Dict[str, int]
    """Pictures by class, every class named."""
    epochs: List[EpochReport]
    best_epoch: int
    """The epoch whose weights the network has now."""
    stopped_early: bool
    seconds: float
    """Wall time of the whole call."""
    feature_seconds: float
    """Of which the frozen levels took this."""
    features_computed: int
    """Rows that the cache did not have."""
    remarks: List[str] = field(default_factory=list)
    """What a person should know."""

    @property
    def loss(self) -> float:
        """Mean training loss of the last epoch."""
        return self.epochs[-1].loss if self.epochs else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of right answers on the views of the last epoch, while it trained."""
        return self.epochs[-1].accuracy if self.epochs else float("nan")


@dataclass(frozen=True)
class Predictions:
    """What a network answers for N pictures.

    ``probabilities`` is float32 (N, K); ``labels`` int64 (N,), the true class or -1 where nobody has said;
    ``names`` and ``digests`` name the pictures.
    """

    probabilities: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    names: Tuple[str, ...]
    digests: Tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)
