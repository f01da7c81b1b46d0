"""Model deltas: taking the change of a head, applying one, and its norm.

Sums are single float32 additions, which every machine rounds alike: two sides that apply the same change to
the same head hold the same result to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Mapping, Optional

import numpy as np

from fedspect.update.schema import Arrays, Schema, is_constant, is_statistic


def change_between(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> Arrays:
    """What turns ``before`` into ``after``, up to rounding; of tensors that rounds may change.

    Raises:
        UpdateFormatError: the two have other tensors or shapes.

    """
    schema = Schema.of(before)
    schema.check(after, "the head after training")
    return {name: np.subtract(after[name], before[name], dtype=np.float32) for name in schema.changing.names}


def apply_change(state: Mapping[str, np.ndarray], change: Mapping[str, np.ndarray]) -> Arrays:
    """The state after the change. A variance that rounding took below zero becomes zero.

    Raises:
        UpdateFormatError: the change has other tensors or shapes.

    """
    schema = Schema.of(state).changing
    schema.check(change, "a change")
    applied: Arrays = {
        name: np.asarray(values, np.float32) for name, values in state.items() if is_constant(name)
    }
    for name in schema.names:
        applied[name] = np.add(state[name], change[name], dtype=np.float32)
        if name.endswith(".running_var"):
            np.maximum(applied[name], np.float32(0.0), out=applied[name])
    return applied


def sum_of(change: Mapping[str, np.ndarray], more: Optional[Mapping[str, np.ndarray]]) -> Arrays:
    """Both together; ``more`` may be absent."""
    if more is None:
        return {name: np.asarray(values, dtype=np.float32) for name, values in change.items()}
    Schema.of(change).check(more, "a residual")
    return {name: np.add(change[name], more[name], dtype=np.float32) for name in change}


@dataclass(frozen=True)
class StepSize:
    """How long a change (or a state) is, by Euclid: learned values and measured statistics apart.

    Statistics are apart because they are of another order: they would hide a wild step of the weights.
    """

    weights: float
    statistics: float

    @classmethod
    def of(cls, change: Mapping[str, np.ndarray]) -> StepSize:
        """Measure in float64, so that no finite change overflows."""
        squares = {False: 0.0, True: 0.0}
        for name in sorted(filter(lambda name: not is_constant(name), change)):
            values = np.asarray(change[name], dtype=np.float64).ravel()
            squares[is_statistic(name)] += float(np.dot(values, values))
        return cls(math.sqrt(squares[False]), math.sqrt(squares[True]))
