"""Flower's strategies as aggregators: Flower's own ``aggregate_train`` does the arithmetic.

Which plants take part is the round loop's business, so a strategy samples no nodes; and it is shown changes, as if
the model stood at zero (``fedserver.aggregation.aggregator``).

Running statistics of batch norms are measured, not learned, so a server's optimiser never steps them: they are given
the plain weighted mean, by Krum those of the plant that it chose. Median and trimmed mean work value by value and
treat them as any other tensor.

Flower takes a second to import, so that is done when a strategy is made, not when its options are listed.
"""

from __future__ import annotations

import contextlib
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedserver.aggregation.aggregator import Aggregate, Aggregator, foreign_state, single
from fedserver.aggregation.means import RunningMean
from fedspect.errors import FederationError
from fedspect.settings import Settings
from fedspect.update.schema import Arrays, is_statistic

if TYPE_CHECKING:
    from flwr.common import ArrayRecord
    from flwr.serverapp import strategy as flower

WEIGHT_KEY = "num-examples"  # Flower's own default
POSITION_KEY = "position"  # tells which of the updates Krum took

Moments = Mapping[str, Arrays]
"""Arrays by tensor, by the moment's name."""


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


class ServerOptimizer(Aggregator):
    """A mean, then a step of the server's own: the strategy is shown one update, the running mean."""

    moments: ClassVar[Sequence[str]]
    """What the strategy carries from round to round."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._mean = RunningMean()
        self._moments: Moments = {}

    @abstractmethod
    def step(self, round_number: int, mean: Arrays, moments: Moments) -> tuple[Arrays, Moments]:
        """The change that Flower's strategy makes of the learned tensors' mean, and its moments afterwards."""

    def add(self, plant: str, weight: float, change: Arrays) -> None:
        """Fold the update into the mean."""
        self._mean.add(plant, weight, change)

    def result(self, round_number: int) -> Aggregate:
        """The step; statistics get their plain mean."""
        mean, shares = self._mean.take()
        learned = single({name: values for name, values in mean.items() if not is_statistic(name)})
        change, self._moments = self.step(round_number, learned, self._moments)
        return Aggregate(single({**mean, **change}), shares)

    def state_dict(self) -> Arrays:
        """The moments, by ``moment/tensor name``."""
        return {
            f"{moment}/{name}": np.asarray(values, dtype=np.float32)
            for moment, arrays in self._moments.items()
            for name, values in arrays.items()
        }

    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with these moments."""
        moments: dict[str, Arrays] = {}
        for key, values in state.items():
            moment, _, name = key.partition("/")
            moments.setdefault(moment, {})[name] = np.array(values)
        tensors = [set(arrays) for arrays in moments.values()]
        if moments and (set(moments) != set(self.moments) or any(one != tensors[0] for one in tensors)):
            raise foreign_state(state, self)
        self._moments = moments


class _Adaptive(ServerOptimizer):
    Options = AdaptiveOptions
    moments = ("m", "v")

    @abstractmethod
    def make(self) -> flower.FedAdam | flower.FedYogi:
        """Flower's strategy."""

    def step(self, round_number: int, mean: Arrays, moments: Moments) -> tuple[Arrays, Moments]:
        strategy = self.make()
        if moments:
            strategy.m_t, strategy.v_t = dict(moments["m"]), dict(moments["v"])
        change, _ = _aggregated(strategy, round_number, [(mean, 1.0)])
        return change, {"m": strategy.m_t or {}, "v": strategy.v_t or {}}


class FedAdam(_Adaptive):
    """Adam at the server."""

    def make(self) -> flower.FedAdam:
        """Flower's strategy."""
        from flwr.serverapp.strategy import FedAdam

        return FedAdam(**self.options.model_dump())


class FedYogi(_Adaptive):
    """Yogi at the server."""

    def make(self) -> flower.FedYogi:
        """Flower's strategy."""
        from flwr.serverapp.strategy import FedYogi

        return FedYogi(**self.options.model_dump())


class FedAvgM(ServerOptimizer):
    """Momentum at the server."""

    Options = MomentumOptions
    moments = ("momentum",)

    def step(self, round_number: int, mean: Arrays, moments: Moments) -> tuple[Arrays, Moments]:
        """Flower's step; it keeps its momentum as a list in the tensors' order."""
        from flwr.serverapp.strategy import FedAvgM

        strategy = FedAvgM(**self.options.model_dump())
        if moments:
            strategy.momentum_vector = [moments["momentum"][name] for name in mean]
        change, _ = _aggregated(strategy, round_number, [(mean, 1.0)])
        momentum = strategy.momentum_vector
        return change, {} if momentum is None else {"momentum": dict(zip(mean, momentum, strict=True))}


class HeldUpdates(Aggregator):
    """A rule that has to see all updates of a round together."""

    streams = False
    weighted = False
    statistics: ClassVar[Literal["as weights", "of the chosen", "mean"]] = "mean"
    """How running statistics are made: by the rule itself, taken from the plant that it chose, or by a mean."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._strategy = self.make()
        self._held: list[tuple[str, float, Arrays]] = []

    @abstractmethod
    def make(self) -> flower.FedAvg:
        """Flower's strategy."""

    def add(self, plant: str, weight: float, change: Arrays) -> None:
        """Hold the update."""
        self._held.append((plant, weight, change))

    def result(self, round_number: int) -> Aggregate:
        """What the rule makes of all updates."""
        held, self._held = self._held, []
        together = self.statistics == "as weights"
        updates = [
            ({name: values for name, values in change.items() if together or not is_statistic(name)}, weight)
            for _, weight, change in held
        ]
        found, metrics = _aggregated(self._strategy, round_number, updates)
        if self.statistics == "of the chosen":
            taken = round(float(metrics[POSITION_KEY]))
            shares = {plant: float(place == taken) for place, (plant, _, _) in enumerate(held)}
            note = f"{type(self).__name__} took the update of {held[taken][0]}"
            return Aggregate(single({**held[taken][2], **found}), shares, [note])
        shares = {plant: 1 / len(held) for plant, _, _ in held}
        if self.statistics == "mean":
            mean = RunningMean()
            for update in held:
                mean.add(*update)
            found = {**mean.take()[0], **found}
        return Aggregate(single(found), shares, self.notes(len(held)))

    def notes(self, updates: int) -> list[str]:
        """What there is to say of a result."""
        return []

    def state_dict(self) -> Arrays:
        """Nothing: rounds know nothing of each other."""
        return {}

    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Nothing is expected."""
        if state:
            raise foreign_state(state, self)


class FedMedian(HeldUpdates):
    """The median of every value (Yin et al., 2018)."""

    statistics = "as weights"

    def make(self) -> flower.FedMedian:
        """Flower's strategy."""
        from flwr.serverapp.strategy import FedMedian

        return FedMedian()


class FedTrimmedAvg(HeldUpdates):
    """The mean of every value without the largest and smallest."""

    Options = TrimmedOptions
    statistics = "as weights"

    def make(self) -> flower.FedTrimmedAvg:
        """Flower's strategy."""
        from flwr.serverapp.strategy import FedTrimmedAvg

        return FedTrimmedAvg(beta=self.options.beta)

    def notes(self, updates: int) -> list[str]:
        """How many values were cut."""
        cut = int(self.options.beta * updates)
        return [f"cut the {cut} largest and {cut} smallest of {updates} values everywhere"]


class Krum(HeldUpdates):
    """The one update that lies nearest to its neighbours."""

    Options = KrumOptions
    statistics = "of the chosen"

    def make(self) -> flower.Krum:
        """Flower's strategy."""
        from flwr.serverapp.strategy import Krum

        return Krum(num_malicious_nodes=self.options.malicious_plants)


def _aggregated(
    strategy: flower.FedAvg, round_number: int, updates: Sequence[tuple[Arrays, float]]
) -> tuple[Arrays, Mapping[str, Any]]:
    """What the strategy makes of updates with their weights, told that the model stands at zero."""
    from flwr.common import ConfigRecord, Message, MessageType, MetricRecord, RecordDict

    replies = []
    for place, (arrays, weight) in enumerate(updates):
        metrics = MetricRecord({WEIGHT_KEY: float(weight), POSITION_KEY: float(place)})
        content = RecordDict({"arrays": _record(arrays), "metrics": metrics})
        replies.append(Message(content, dst_node_id=0, message_type=MessageType.TRAIN))
    zeros = _record({name: np.zeros_like(values) for name, values in updates[0][0].items()})
    strategy.fraction_train = 0.0  # so that it asks no grid for nodes
    with _quiet_flower():
        strategy.configure_train(round_number, zeros, ConfigRecord(), None)  # type: ignore[arg-type]
        found, metrics_found = strategy.aggregate_train(round_number, replies)
    if found is None or metrics_found is None:
        raise FederationError(f"{type(strategy).__name__} made no model of {len(updates)} updates")
    arrays = {name: values.numpy() for name, values in found.items()}
    for reply in replies:  # Flower's records refer to themselves: emptied, they need not wait to be collected
        for record in reply.content.array_records.values():
            record.clear()
    return arrays, metrics_found


def _record(arrays: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    from flwr.common import Array, ArrayRecord

    return ArrayRecord({name: Array(np.ascontiguousarray(values)) for name, values in arrays.items()})


@contextlib.contextmanager
def _quiet_flower() -> Iterator[None]:
    """Flower logs a line for every call."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
