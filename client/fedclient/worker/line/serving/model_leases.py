"""Model lease: a request holds its model from before its pictures are decoded until it is answered.

A request *leases* the model, because another version may want other pixels. Replacing the model changes what the
next request leases; the old model is closed when its last lease ends.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Optional, Protocol, Tuple

import numpy as np

from fedclient.worker.engines.model import LineAnswer
from fedclient.worker.line.decision_policy import DecisionPolicy
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import WorkerError


class ServedModel(Protocol):
    """What the queue needs of a model; ``fedclient.worker.engines.model.LineModel`` is one."""

    version: str
    number: int
    classes: Tuple[str, ...]
    preprocessing: Preprocessing

    def answer(self, pixels: np.ndarray) -> LineAnswer: ...
    def close(self) -> None: ...


class NotReadyError(WorkerError):
    """There is no engine yet, or the process is ending."""


class BusyError(WorkerError):
    """As many pictures wait as may wait: come back later."""


class LoadedModel:
    """A model and how many requests use it."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.users = 0
        self.retired = False


class Lease:
    """One request's hold on a model, with the thresholds that were in force when the request came."""

    def __init__(self, held: LoadedModel, policy: DecisionPolicy) -> None:
        self.held = held
        self.policy = policy
        self.queued = False

    @property
    def model(self) -> ServedModel:
        """The model; open as long as the lease lasts."""
        return self.held.model


@dataclass
class Job:
    """The pictures of one request, and their answer once ``done`` is set."""

    lease: Lease
    pixels: np.ndarray
    done: threading.Event = field(default_factory=threading.Event)
    answer: Optional[LineAnswer] = None
    error: Optional[Exception] = None
    abandoned: bool = False
    queued_at: float = field(default_factory=time.perf_counter)
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def waited(self) -> float:
        """Seconds in the queue."""
        return max(0.0, self.started_at - self.queued_at)

    @property
    def computed(self) -> float:
        """Seconds of the batch that it was answered in."""
        return max(0.0, self.ended_at - self.started_at)
