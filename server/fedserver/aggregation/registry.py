"""Strategies by name: Fedspect's own, and what other packages register as ``fedspect.aggregators``.

A strategy whose state does not survive a restart would go on from nothing, without a word, after the first one. So
each is rehearsed on a few numbers before a run begins with it, and refused when a copy that was loaded from its saved
state does not go on as it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fedserver.aggregation.aggregator import Aggregator
from fedspect import plugins
from fedspect.errors import FedspectError, SettingsError
from fedspect.settings import Settings, settings_from
from fedspect.update.schema import Arrays

GROUP = "fedspect.aggregators"
OWN = {
    "fedavg": "fedserver.aggregation.means:FedAvg",
    "fedprox": "fedserver.aggregation.means:FedProx",
    "fedadam": "fedserver.flower.strategies:FedAdam",
    "fedyogi": "fedserver.flower.strategies:FedYogi",
    "fedavgm": "fedserver.flower.strategies:FedAvgM",
    "fedmedian": "fedserver.flower.strategies:FedMedian",
    "trimmed": "fedserver.flower.strategies:FedTrimmedAvg",
    "krum": "fedserver.flower.strategies:Krum",
}
REHEARSED = 5  # plants


def strategy_names() -> list[str]:
    """The names that ``build_aggregator`` accepts."""
    return list(plugins.load(GROUP, OWN))


def aggregator_class(name: str) -> type[Aggregator]:
    """The class of a strategy.

    Raises:
        SettingsError: there is no such strategy, or it is no aggregator.

    """
    found = plugins.resolve(GROUP, name, OWN)
    if not (isinstance(found, type) and issubclass(found, Aggregator)):
        raise SettingsError(
            f"the strategy {name} is no aggregator",
            seen=found,
            accepted="a class below fedserver.aggregation.aggregator.Aggregator",
        )
    return found


def strategy_options(name: str) -> type[Settings]:
    """The model of a strategy's options, each documented under its field; raises as ``aggregator_class``."""
    return aggregator_class(name).Options


def check_strategy(name: str, options: Mapping[str, Any]) -> None:
    """See in a settings model that a strategy and its options are known; Fedspect's own cost no look at packages.

    Raises:
        ValueError: they are not (pydantic's ``ValidationError`` is one).

    """
    if name not in OWN and name not in (names := strategy_names()):
        raise ValueError(f"there is no strategy {name!r}; known are {', '.join(names)}")
    if options:
        strategy_options(name).model_validate(options)


def build_aggregator(name: str, options: Mapping[str, Any] | None = None) -> Aggregator:
    """A strategy that is ready for its first round.

    Raises:
        SettingsError: the name, an option's name or its value is not accepted, or the strategy cannot be restarted.

    """
    kind = aggregator_class(name)
    chosen = settings_from(options or {}, kind.Options, origin=f"the options of {name}")
    try:
        _rehearse(lambda: kind(chosen))
        return kind(chosen)
    except SettingsError:
        raise
    except Exception as error:  # a foreign class may fail in any way
        raise SettingsError(
            f"the strategy {name} cannot be used",
            seen=f"{type(error).__name__}: {error}",
            accepted="add, result, state_dict and load_state_dict, through which a restarted run goes on to the bit",
            remedy=None if isinstance(error, FedspectError) else f"mend {kind.__module__}",
        ) from error


def _rehearse(make: Callable[[], Aggregator]) -> None:
    """Three rounds of one instance; another that is loaded from its state before the third must end alike."""
    whole, restored = make(), make()
    for number in (1, 2):
        _round(whole, number)
    restored.load_state_dict(load_tensors(save_tensors(whole.state_dict())))
    expected, found = _round(whole, 3), _round(restored, 3)
    if set(expected) != set(found) or any(not np.array_equal(expected[key], found[key]) for key in expected):
        raise SettingsError(
            f"{type(whole).__name__} would not survive a restart",
            seen="a round after loading its saved state that differs from the same round without",
            accepted="a strategy that keeps everything it carries on in state_dict",
        )


def _round(aggregator: Aggregator, number: int) -> Arrays:
    draw = np.random.default_rng(number)
    for plant in range(REHEARSED):
        update = {
            "layer.weight": draw.normal(size=(2, 3)).astype(np.float32),
            "norm.running_mean": draw.normal(size=2).astype(np.float32),
        }
        aggregator.add(f"plant-{plant}", 1.0 + plant, update)
    return aggregator.result(number).change
