"""Weighted means: FedAvg (McMahan et al., 2017) and FedProx (Li et al., 2020).

The mean runs: each update is folded into the mean so far in float64, so memory does not grow with the number of
plants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedserver.aggregation.aggregator import Aggregate, Aggregator, foreign_state, single
from fedspect.settings import Settings
from fedspect.update.schema import Arrays


class RunningMean:
    """The weighted mean of what was added."""

    def __init__(self) -> None:
        self.weights: dict[str, float] = {}
        self._mean: dict[str, npt.NDArray[np.float64]] = {}
        self._total = 0.0

    def add(self, plant: str, weight: float, change: Arrays) -> None:
        """Fold an update in."""
        update = {name: values.astype(np.float64) for name, values in change.items()}
        total = self._total + weight
        if self._mean:
            kept, added = self._total / total, weight / total
            for name, values in update.items():
                self._mean[name] *= kept
                values *= added
                self._mean[name] += values
        else:
            self._mean = update
        self._total = total
        self.weights[plant] = weight

    def take(self) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, float]]:
        """The mean and each plant's share of it; the next one begins."""
        mean, total = self._mean, sum(self.weights.values())
        shares = {plant: weight / total for plant, weight in self.weights.items()}
        self.__init__()  # type: ignore[misc]
        return mean, shares


class FedAvg(Aggregator):
    """The mean of the updates, weighted by the plants' pictures."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._mean = RunningMean()

    def add(self, plant: str, weight: float, change: Arrays) -> None:
        """Fold the update into the mean."""
        self._mean.add(plant, weight, change)

    def result(self, round_number: int) -> Aggregate:
        """The mean."""
        mean, shares = self._mean.take()
        return Aggregate(single(mean), shares)

    def state_dict(self) -> Arrays:
        """Nothing: rounds know nothing of each other."""
        return {}

    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Nothing is expected."""
        if state:
            raise foreign_state(state, self)


class ProximalOptions(Settings):
    """FedProx: plants are held near the model that they received."""

    proximal_mu: float = Field(0.01, ge=0, le=100)
    """Weight of half the squared distance in each plant's loss; 0 is FedAvg."""


class FedProx(FedAvg):
    """The mean of updates that were made with a proximal term."""

    Options = ProximalOptions

    @property
    def task_options(self) -> Mapping[str, float]:
        """The proximal term's weight."""
        return {"proximal_mu": self.options.proximal_mu}
