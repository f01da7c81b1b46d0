"""Flower's strategies by name, and what our round loop must know about each.

Flower's own ``aggregate_train`` does the arithmetic of every rule. Two things differ from Flower's loop:

* *Changes, not models.* A strategy is shown what each plant changed, as if the model stood at zero, and its
  answer is the change that the model makes. Mean, median, trimmed mean, Krum and the adaptive steps all move
  along with a shift of the origin, so the result is the same; but a distance between changes is not lost in
  the rounding of large models, and an update is never added to the model before it is accepted.
* *No sampling.* Which plants take part is the round loop's business (quorum, deadline, who is set aside), so
  ``fraction_train`` is 0 and ``configure_train`` only lets a strategy note the round and write its settings.

What a strategy carries from round to round (the moments of FedAdam and FedYogi, the momentum of FedAvgM) is
read and put back by ``strategy_state`` and ``restore_strategy``, for a server that is started again.
"""

from __future__ import annotations

import difflib
from typing import Any, Callable, Mapping

import numpy as np
import numpy.typing as npt
from flwr.common import Array, ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    Strategy,
)
from pydantic import Field

from fedspect.errors import DamagedFileError, SettingsError
from fedspect.settings import Settings, settings_from
from fedspect.update.schema import Arrays

WEIGHT_KEY = "num-examples"  # Flower's own default


class NoOptions(Settings):
    """FedAvg and FedMedian have nothing to set."""


class ProximalOptions(Settings):
    """FedProx (Li et al., 2020): plants are held near the model that they received."""

    proximal_mu: float = Field(0.01, ge=0, le=100)
    """Weight of half the squared distance in each plant's loss; 0 is FedAvg."""


class AdaptiveOptions(Settings):
    """FedAdam and FedYogi (Reddi et al., 2021, Algorithm 2)."""

    eta: float = Field(0.01, gt=0, le=10)
    """The server's step; a coordinate moves by about this much in a round (Flower's default is 0.1)."""
    beta_1: float = Field(0.9, ge=0, lt=1)
    """Share of the first moment that is kept."""
    beta_2: float = Field(0.99, ge=0, lt=1)
    """Share of the second moment that is kept."""
    tau: float = Field(1e-3, gt=0)
    """Adaptivity: changes well below it move the model in proportion, larger ones by sign."""


class MomentumOptions(Settings):
    """FedAvgM (Hsu et al., 2019)."""

    server_learning_rate: float = Field(1.0, gt=0, le=10)
    """How much of the mean change the model makes."""
    server_momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the last round's movement that is kept."""


class TrimmedOptions(Settings):
    """The trimmed mean (Yin et al., 2018)."""

    beta: float = Field(0.2, ge=0, lt=0.5)
    """Share of the updates cut off at each end, by coordinate: the whole part of beta times plants."""


class KrumOptions(Settings):
    """Krum (Blanchard et al., 2017): the one update that lies nearest to its neighbours."""

    malicious_plants: int = Field(1, ge=0)
    """How many plants may be wrong; Krum's promise needs at least twice as many plants plus three."""


_Builder = Callable[[Any], FedAvg]
_RULES: Mapping[str, tuple[type[Settings], _Builder]] = {
    "fedavg": (NoOptions, lambda options: FedAvg()),
    "fedprox": (ProximalOptions, lambda options: FedProx(**options.model_dump())),
    "fedadam": (AdaptiveOptions, lambda options: FedAdam(**options.model_dump())),
    "fedyogi": (AdaptiveOptions, lambda options: FedYogi(**options.model_dump())),
    "fedavgm": (MomentumOptions, lambda options: FedAvgM(**options.model_dump())),
    "fedmedian": (NoOptions, lambda options: FedMedian()),
    "trimmed": (TrimmedOptions, lambda options: FedTrimmedAvg(beta=options.beta)),
    "krum": (KrumOptions, lambda options: Krum(num_malicious_nodes=options.malicious_plants)),
}


def strategy_names() -> list[str]:
    """The names that ``build_strategy`` accepts."""
    return list(_RULES)


def strategy_options(name: str) -> type[Settings]:
    """The model of a strategy's options, each documented under its field.

    Raises:
        SettingsError: there is no such strategy; the nearest name is suggested.

    """
    if name not in _RULES:
        near = difflib.get_close_matches(name, _RULES, n=1)
        raise SettingsError(
            "there is no such strategy",
            seen=name,
            accepted=", ".join(_RULES),
            remedy=f"did you mean {near[0]}?" if near else None,
        )
    return _RULES[name][0]


def build_strategy(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """One of Flower's strategies, ready for ``RoundLoop``.

    Raises:
        SettingsError: the name, an option's name or its value is not accepted.

    """
    model = strategy_options(name)
    return _RULES[name][1](settings_from(options or {}, model, origin=f"the options of {name}"))


def holds_every_update(strategy: Strategy) -> bool:
    """Whether a rule must see all updates at once; a mean is folded one update at a time instead.

    A strategy that is not known here is given them all: that is always right, and only costs memory.
    """
    return type(strategy) not in (FedAvg, FedProx, FedAdam, FedYogi, FedAvgM)


def keeps_moments(strategy: Strategy) -> bool:
    """Whether the server takes a step of its own, through which batch-norm statistics must never go."""
    return isinstance(strategy, (FedAdam, FedYogi, FedAvgM))


def begin_round(strategy: Strategy, round_number: int, zeros: ArrayRecord) -> ConfigRecord:
    """Let the strategy note that the model stands at ``zeros``; what it writes for the plants comes back."""
    if isinstance(strategy, FedAvgM):
        strategy.current_arrays = None  # it would go on from its last answer, but changes start at zero
    if isinstance(strategy, FedAvg):
        strategy.fraction_train = 0.0  # so that it asks no grid for plants
    config = ConfigRecord()
    strategy.configure_train(round_number, zeros, config, None)  # type: ignore[arg-type]
    return config


def strategy_state(strategy: Strategy, names: list[str]) -> Arrays:
    """What the strategy carries to the next round, by ``moment/tensor name``; empty for most rules."""
    moments: dict[str, Mapping[str, npt.NDArray[Any]]] = {}
    if isinstance(strategy, (FedAdam, FedYogi)):
        moments = {"m": strategy.m_t or {}, "v": strategy.v_t or {}}
    elif isinstance(strategy, FedAvgM) and strategy.momentum_vector is not None:
        moments = {"momentum": dict(zip(names, strategy.momentum_vector, strict=True))}
    return {
        f"{moment}/{name}": np.asarray(value, dtype=np.float32)
        for moment, arrays in moments.items()
        for name, value in arrays.items()
    }


def restore_strategy(strategy: Strategy, state: Mapping[str, npt.NDArray[Any]], names: list[str]) -> None:
    """Put back what ``strategy_state`` gave.

    Raises:
        DamagedFileError: the state is of another strategy or of other tensors.

    """
    if not state:
        return
    moments: dict[str, Arrays] = {}
    for key, value in state.items():
        moment, _, name = key.partition("/")
        moments.setdefault(moment, {})[name] = np.array(value)
    expected = {"m", "v"} if isinstance(strategy, (FedAdam, FedYogi)) else {"momentum"}
    fits = set(moments) == expected and all(set(arrays) == set(names) for arrays in moments.values())
    if fits and isinstance(strategy, (FedAdam, FedYogi)):
        strategy.m_t, strategy.v_t = moments["m"], moments["v"]
    elif fits and isinstance(strategy, FedAvgM):
        strategy.momentum_vector = [moments["momentum"][name] for name in names]
    else:
        raise DamagedFileError(
            "the stored state of the strategy does not fit",
            seen=f"{', '.join(sorted(moments))} for {type(strategy).__name__}",
            remedy="go on with the strategy that the run was started with",
        )


def array_record(arrays: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    """Named numpy arrays as Flower's record."""
    return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in arrays.items()})
