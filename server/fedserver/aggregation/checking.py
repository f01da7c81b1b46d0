"""From answers on disk to the change of the model: checked, ordered by plant, folded by Flower.

An answer is kept as the bytes that arrived. When the round closes, each is read twice, one at a time:
once to check it and to measure its step, once to average it. A rule that is a mean gets one pseudo answer
at the end: the running weighted mean, folded update by update with Flower's own aggregation in float64,
so that memory does not grow with the number of plants. A robust rule (median, trimmed mean, Krum) has to
see all updates together; what that holds in memory is said in the round's notes.

Running statistics of batch norms are measured, not learned, so a server's optimiser never steps them:
mean rules give them the plain weighted mean, Krum those of the plant that it chose; median and trimmed
mean work value by value and treat them as any other tensor.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.common import Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum, Strategy

from fedserver.flower.strategies import WEIGHT_KEY, array_record, holds_every_update
from fedspect.errors import FederationError, UpdateError, UpdateRefusedError
from fedspect.update.change import StepSize
from fedspect.update.checks import (
    DEFAULT_CHECKS,
    CheckSettings,
    Expected,
    Step,
    believed,
    check_reply,
    check_step,
    refusal,
    step_outliers,
    weighed,
)
from fedspect.update.encoding import decode, largest_message
from fedspect.update.round_messages import MAX_HEADER_BYTES, RoundReply
from fedspect.update.schema import Arrays, Schema, is_statistic

POSITION_KEY = "position"  # tells which of the answers Krum took


@dataclass(frozen=True)
class Spooled:
    """An answer that waits on disk for its round to close."""

    expected: Expected
    path: Path
    late_by: int = 0

    @property
    def plant(self) -> str:
        """Who sent it."""
        return self.expected.plant

    def read(self) -> RoundReply:
        """The answer, from disk."""
        return RoundReply.from_bytes(self.path.read_bytes(), largest_reply(self.expected.schema))


@dataclass(frozen=True)
class Accepted:
    """An update that passed every check."""

    spooled: Spooled
    step: Step
    weight: float
    """Pictures that it counts for, less the discount for being late."""
    claim: int | None = None
    """Pictures that it claims, where it counts for fewer."""


@dataclass(frozen=True)
class Aggregate:
    """The change that a round makes, and what there is to say about it."""

    change: Arrays
    shares: Mapping[str, float]
    """Each plant's weight in the result; all together 1."""
    notes: list[str]


def largest_reply(schema: Schema) -> int:
    """No honest answer is longer than this many bytes."""
    return largest_message(schema) + MAX_HEADER_BYTES + 64


def check_updates(
    spooled: Iterable[Spooled],
    head: Mapping[str, npt.NDArray[np.float32]],
    *,
    discount: float = 1.0,
    earlier: Sequence[Step] = (),
    settings: CheckSettings = DEFAULT_CHECKS,
) -> tuple[list[Accepted], dict[str, UpdateRefusedError]]:
    """The updates that may touch the model, ordered by plant, and why the others may not.

    Args:
        spooled: answers that hold a change; at most one of each plant.
        head: the head that the round started from.
        discount: the share of its weight that an update keeps for each round that it is late.
        earlier: accepted steps of the rounds before, to compare with.
        settings: the limits.

    """
    length = StepSize.of(head)
    found: dict[str, Spooled] = {}
    claims: dict[str, int] = {}
    steps: list[Step] = []
    refused: dict[str, UpdateRefusedError] = {}
    for one in sorted(spooled, key=lambda each: each.plant):
        try:
            reply = one.read()
            size = StepSize.of(check_reply(reply, one.expected, settings))
            step = Step(one.plant, size, believed(reply.num_examples, one.expected, settings))
            check_step(step, length, settings)
        except UpdateRefusedError as error:
            refused[one.plant] = error
        except UpdateError as error:
            refused[one.plant] = refusal(one.plant, error.what, seen=error.seen, accepted=error.accepted)
        else:
            found[one.plant], claims[one.plant] = one, reply.num_examples
            steps.append(step)
    outliers = step_outliers(steps, earlier=earlier, settings=settings)
    usual = [step for step in steps if step.plant not in outliers]
    accepted = [
        _accepted(found[step.plant], step, claims[step.plant], discount)
        for step in weighed(usual, earlier=earlier, settings=settings)
    ]
    return [one for one in accepted if one.weight > 0], {**refused, **outliers}


def _accepted(spooled: Spooled, step: Step, claim: int, discount: float) -> Accepted:
    weight = step.examples * discount**spooled.late_by
    return Accepted(spooled, step, weight, claim if claim > step.examples else None)


def aggregate(strategy: Strategy, round_number: int, accepted: Sequence[Accepted]) -> Aggregate:
    """The change that the strategy makes of the accepted updates (at least one; ``begin_round`` came before).

    Raises:
        FederationError: the strategy's answer cannot be used.

    """
    accepted = sorted(accepted, key=lambda one: one.spooled.plant)
    with _quiet_flower():
        if holds_every_update(strategy):
            found = _all_at_once(strategy, round_number, accepted)
        else:
            found = _one_by_one(strategy, round_number, accepted)
    bad = [name for name, values in found.change.items() if not np.isfinite(values).all()]
    if bad:
        raise FederationError(
            "the strategy made a change that is not finite",
            seen=f"{type(strategy).__name__}, tensor {bad[0]}",
            remedy="choose milder options for the strategy, for example a smaller eta",
        )
    return found


def _one_by_one(strategy: Strategy, round_number: int, accepted: Sequence[Accepted]) -> Aggregate:
    mean = running_mean((one.weight, _change(one)) for one in accepted)
    total = sum(one.weight for one in accepted)
    learned = {name: values for name, values in mean.items() if not is_statistic(name)}
    answer, _ = _aggregate_train(strategy, round_number, [_reply(_single(learned), total)])
    change = _single({**mean, **answer})
    shares = {one.spooled.plant: one.weight / total for one in accepted}
    return Aggregate(change, shares, _doubted(accepted))


def running_mean(updates: Iterable[tuple[float, Arrays]]) -> dict[str, npt.NDArray[np.float64]]:
    """The weighted mean, looking at one update at a time: Flower's mean of the mean so far and the next."""
    flower = FedAvg(weighted_by_key=WEIGHT_KEY)
    mean: dict[str, Any] = {}
    total = 0.0
    for weight, change in updates:
        update = {name: values.astype(np.float64) for name, values in change.items()}
        if mean:
            mean, _ = _aggregate_train(flower, 1, [_reply(mean, total), _reply(update, weight)])
        else:
            mean = update
        total += weight
    return mean


def _all_at_once(strategy: Strategy, round_number: int, accepted: Sequence[Accepted]) -> Aggregate:
    changes = [_change(one) for one in accepted]
    together = isinstance(strategy, (FedMedian, FedTrimmedAvg))
    replies = [
        _reply(
            {name: values for name, values in change.items() if together or not is_statistic(name)},
            one.weight,
            position=place,
        )
        for place, (one, change) in enumerate(zip(accepted, changes, strict=True))
    ]
    notes = [_cost(strategy, changes)]
    shares = {one.spooled.plant: 1 / len(accepted) for one in accepted}
    answer, metrics = _aggregate_train(strategy, round_number, replies)
    if together:
        change = _single(answer)
    elif isinstance(strategy, Krum):
        taken = round(float(metrics[POSITION_KEY]))  # type: ignore[arg-type]
        change = _single({**changes[taken], **answer})
        shares = {one.spooled.plant: float(place == taken) for place, one in enumerate(accepted)}
        notes.append(f"Krum took the update of {accepted[taken].spooled.plant}")
    else:
        weights = [one.weight for one in accepted]
        notes += _doubted(accepted)
        change = _single({**running_mean(zip(weights, changes, strict=True)), **answer})
    if isinstance(strategy, FedTrimmedAvg):
        cut = int(strategy.beta * len(accepted))
        notes.append(f"cut the {cut} largest and {cut} smallest of {len(accepted)} values everywhere")
    return Aggregate(change, shares, notes)


def _doubted(accepted: Sequence[Accepted]) -> list[str]:
    """Whose number of pictures is not taken at its word in a mean."""
    return [
        f"{one.spooled.plant} counts for {one.step.examples} of the {one.claim} pictures that it claims"
        for one in accepted
        if one.claim is not None
    ]


def _cost(strategy: Strategy, changes: Sequence[Arrays]) -> str:
    megabytes = sum(values.nbytes for change in changes for values in change.values()) / 1e6
    name = type(strategy).__name__
    return f"{name} held {len(changes)} updates in memory at once, {megabytes:.1f} MB; a mean holds one"


def _aggregate_train(
    strategy: Strategy, round_number: int, replies: list[Message]
) -> tuple[dict[str, npt.NDArray[Any]], MetricRecord]:
    arrays, metrics = strategy.aggregate_train(round_number, replies)
    if arrays is None or metrics is None:
        raise FederationError(f"{type(strategy).__name__} made no model of {len(replies)} updates")
    found = {name: values.numpy() for name, values in arrays.items()}
    for reply in replies:  # Flower's records refer to themselves: emptied, they need not wait to be collected
        for record in reply.content.array_records.values():
            record.clear()
    return found, metrics


def _reply(arrays: Mapping[str, npt.NDArray[Any]], weight: float, **metrics: float) -> Message:
    """An update as one of Flower's answers."""
    content = RecordDict(
        {"arrays": array_record(arrays), "metrics": MetricRecord({WEIGHT_KEY: float(weight), **metrics})}
    )
    return Message(content, dst_node_id=0, message_type=MessageType.TRAIN)


def _change(one: Accepted) -> Arrays:
    return decode(one.spooled.read().payload, one.spooled.expected.schema)


def _single(arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {name: values.astype(np.float32) for name, values in arrays.items()}


@contextlib.contextmanager
def _quiet_flower() -> Iterator[None]:
    """Flower logs a line for every call; with one call an update that buries what matters."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
