"""Server momentum with Nesterov's look ahead: a strategy whose state must survive a restart of headquarters."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from fedserver.aggregation.aggregator import Aggregate, Aggregator, foreign_state
from fedserver.aggregation.means import RunningMean
from fedspect.settings import Settings
from fedspect.update.schema import is_statistic

PREFIX = "velocity/"


class NesterovOptions(Settings):
    """What `strategy_options` may hold."""

    momentum: float = Field(0.5, ge=0, lt=1)
    """Share of the last round's velocity that is kept."""


class FedNesterov(Aggregator):
    """The mean of the updates moves a velocity; the model goes one step further along it."""

    Options = NesterovOptions

    def __init__(self, options):
        super().__init__(options)
        self._mean = RunningMean()
        self._velocity = {}

    def add(self, plant, weight, change):
        self._mean.add(plant, weight, change)

    def result(self, round_number):
        mean, shares = self._mean.take()
        change, momentum = {}, self.options.momentum
        for name, step in mean.items():
            if is_statistic(name):  # measured, not learned: no momentum
                change[name] = step.astype(np.float32)
                continue
            velocity = momentum * self._velocity.get(name, 0.0) + step
            self._velocity[name] = velocity.astype(np.float32)
            change[name] = (step + momentum * self._velocity[name]).astype(np.float32)
        return Aggregate(change, shares)

    def state_dict(self):
        return {PREFIX + name: values for name, values in self._velocity.items()}

    def load_state_dict(self, state):
        if any(not name.startswith(PREFIX) for name in state):
            raise foreign_state(state, self)
        self._velocity = {name[len(PREFIX) :]: np.array(values) for name, values in state.items()}
