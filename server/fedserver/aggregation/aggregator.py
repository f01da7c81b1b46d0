"""Aggregator protocol: how the plants' updates of a round become one change of the model.

An update is what a plant *changed*, not its model: mean, median, trimmed mean, Krum and adaptive steps all move along
with a shift of the origin, so the result is the same; but a distance between changes is not lost in the rounding of
large models, and an update never touches the model before it is accepted.

A package adds one by a class and an entry point of the group ``fedspect.aggregators`` (``registry``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedspect.errors import DamagedFileError
from fedspect.settings import Settings
from fedspect.update.schema import Arrays


class NoOptions(Settings):
    """Nothing can be set."""


@dataclass(frozen=True)
class Aggregate:
    """The change that a round makes, and what there is to say about it."""

    change: Arrays
    """float32 by full name."""
    shares: Mapping[str, float]
    """Each plant's weight in the result; all together 1."""
    notes: list[str] = field(default_factory=list)


class Aggregator(ABC):
    """Makes one change of a round's updates, and may carry something on to the next round.

    Args:
        options: an instance of ``Options``.

    """

    Options: ClassVar[type[Settings]] = NoOptions
    """The model of what can be set under ``strategy_options``, each field documented."""
    streams: ClassVar[bool] = True
    """Whether ``add`` folds an update into what is there; otherwise it holds them all, and a note says so."""
    weighted: ClassVar[bool] = True
    """Whether an update counts by the plant's pictures."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    def task_options(self) -> Mapping[str, float]:
        """What plants are told for their training; ``proximal_mu`` is known."""
        return {}

    @abstractmethod
    def add(self, plant: str, weight: float, change: Arrays) -> None:
        """Take an update (float32 by full name, running statistics of batch norms included).

        Updates come ordered by plant, so that the result does not depend on who answered first.
        """

    @abstractmethod
    def result(self, round_number: int) -> Aggregate:
        """The round's change of all that was added since the last result (at least one update)."""

    @abstractmethod
    def state_dict(self) -> Arrays:
        """Everything that the next round depends on, as named arrays; empty when rounds know nothing of each other."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``state_dict`` gave.

        Raises:
            DamagedFileError: the state is another aggregator's.

        """


def single(arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Arrays as float32."""
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def foreign_state(state: Mapping[str, object], aggregator: Aggregator) -> DamagedFileError:
    """The error for a state that is another aggregator's."""
    return DamagedFileError(
        "the stored state of the strategy does not fit",
        seen=f"{', '.join(sorted(state)[:5])} for {type(aggregator).__name__}",
        remedy="go on with the strategy that the run was started with",
    )
