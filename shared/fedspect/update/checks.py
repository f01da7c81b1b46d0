"""Update checks: what an update must pass before it may touch the model.

Two looks: ``check_reply`` at each update alone, when it arrives (is it for this round, this base and this
head, is every value finite, are the counts possible?), and ``step_outliers`` at all updates of a round
together, when it closes (is one step far longer than the others?). Whatever passes may be averaged as it
is: float32, the head's own shapes, finite, and short enough that no sum of such steps overflows.

Each refusal is an ``UpdateRefusedError`` that names the plant, the reason, the value seen and what is
accepted.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np
from pydantic import Field

from fedspect.errors import UpdateError, UpdateRefusedError
from fedspect.settings import Settings
from fedspect.update.change import StepSize
from fedspect.update.encoding import decode
from fedspect.update.round_messages import RoundReply
from fedspect.update.schema import Arrays, Schema

STRAY_STATISTICS = "its step of the statistics is out of proportion to the head"
"""The reason of a refusal that is the base model's fault where all plants get it."""
ENOUGH_FOR_A_SPREAD = 4
"""From this many steps on, median and MAD say what is usual."""
NORMAL_MAD = 1.4826
"""The standard deviation of a normal distribution, in MADs."""


class CheckSettings(Settings):
    """How far an update may stray."""

    max_pictures: int = Field(1_000_000, ge=1)
    """No plant may claim more training pictures than this."""
    growth: float = Field(3.0, ge=1.0)
    """A plant may train on at most this many times the pictures that it had when it last described itself,
    and counts for at most this many times those that it had when it first did so in this run.
    """
    of_others: float = Field(10.0, ge=1.0)
    """A plant counts for at most this many times the median of the others' pictures."""
    deviations: float = Field(6.0, gt=0.0)
    """A step may be this many standard deviations (from the MAD) longer than the median step."""
    slack: float = Field(5.0, ge=1.0)
    """A step of up to this many medians is never refused for being long: plants differ."""
    slack_of_few: float = Field(20.0, ge=1.0)
    """With fewer than four steps to compare: a step may be this many times the (lower) median."""
    slack_of_statistics: float = Field(50.0, ge=1.0)
    """The same for running statistics, which differ more between plants than steps do."""
    of_head: float = Field(10.0, gt=0.0)
    """A step of the weights may be this many times as long as the head itself, whatever the others do."""
    statistics_of_head: float = Field(1000.0, gt=0.0)
    """A step of the running statistics may be this many times as long as the head's."""


DEFAULT_CHECKS = CheckSettings()


@dataclass(frozen=True)
class Expected:
    """What the server knows of the reply that it waits for."""

    plant: str
    run_id: str
    round: int
    base_hash: str
    version: str
    schema: Schema
    classes: Sequence[str]
    enrolled: Optional[Mapping[str, int]] = None
    """Training pictures by class when the plant last described itself; None skips the comparison."""
    at_first: Optional[int] = None
    """All its training pictures when it first described itself in this run; None skips the comparison."""


@dataclass(frozen=True)
class Step:
    """One plant's step, as ``step_outliers`` compares it."""

    plant: str
    size: StepSize
    examples: int
    """The pictures that it counts for."""

    @property
    def pace(self) -> float:
        """The length of the weights' step per root of the pictures: more batches lead further."""
        return self.size.weights / math.sqrt(max(1, self.examples))


def refusal(
    plant: str, reason: str, *, seen: object = None, accepted: Optional[str] = None
) -> UpdateRefusedError:
    """The refusal of one plant's update."""
    return UpdateRefusedError(f"the update of {plant} is refused: {reason}", seen=seen, accepted=accepted)


def check_reply(reply: RoundReply, expected: Expected, settings: CheckSettings = DEFAULT_CHECKS) -> Arrays:
    """The decoded change of a reply that may be averaged.

    Raises:
        UpdateRefusedError: naming plant, reason and value.

    """
    plant = expected.plant
    for what, seen, accepted in (
        ("it comes under another plant's name", reply.plant, plant),
        ("it belongs to another run", reply.run_id, expected.run_id),
        ("it belongs to another round", reply.round, expected.round),
        ("it was trained from another base model", reply.base_hash[:12], expected.base_hash[:12]),
        ("it was trained from another version", reply.version[:12], expected.version[:12]),
    ):
        if seen != accepted:
            raise refusal(plant, what, seen=seen, accepted=str(accepted))
    if not reply.trained:
        raise refusal(plant, "it holds no change", seen=reply.error.message if reply.error else None)
    _check_counts(reply, expected, settings)
    try:
        change = decode(reply.payload, expected.schema)
    except UpdateError as error:
        raise refusal(plant, error.what, seen=error.seen, accepted=error.accepted) from error
    for name, values in change.items():
        if not np.isfinite(values).all():
            bad = values[~np.isfinite(values)]
            raise refusal(plant, f"tensor {name} is not finite", seen=f"{bad.size} values, first {bad[0]}")
    return change


def _check_counts(reply: RoundReply, expected: Expected, settings: CheckSettings) -> None:
    plant, examples = expected.plant, reply.num_examples
    if not 1 <= examples <= settings.max_pictures:
        raise refusal(
            plant,
            "its number of pictures is impossible",
            seen=examples,
            accepted=f"1 to {settings.max_pictures}",
        )
    unknown = sorted(set(reply.counts) - set(expected.classes))
    if unknown:
        raise refusal(
            plant,
            "it counts pictures of an unknown class",
            seen=unknown[0],
            accepted=", ".join(expected.classes),
        )
    if sum(reply.counts.values()) != examples:
        raise refusal(
            plant,
            "its pictures by class do not add up",
            seen=f"{sum(reply.counts.values())} by class",
            accepted=str(examples),
        )
    if expected.enrolled is not None:
        most = math.ceil(settings.growth * max(1, sum(expected.enrolled.values())))
        if examples > most:
            raise refusal(
                plant, "it claims far more pictures than it had", seen=examples, accepted=f"at most {most}"
            )


def check_step(step: Step, head: StepSize, settings: CheckSettings = DEFAULT_CHECKS) -> None:
    """Raise ``UpdateRefusedError`` for a step that is out of proportion to the head itself."""
    for reason, size, limit in (
        ("its step is out of proportion to the head", step.size.weights, settings.of_head * head.weights),
        (STRAY_STATISTICS, step.size.statistics, settings.statistics_of_head * head.statistics),
    ):
        if size > limit > 0:
            raise refusal(
                step.plant,
                reason,
                seen=f"length {size:.4g}",
                accepted=f"at most {limit:.4g}",
            )


def cap_by_enrolment(claim: int, expected: Expected, settings: CheckSettings = DEFAULT_CHECKS) -> int:
    """The pictures that a plant may count for by what it first said of itself."""
    if expected.at_first is None:
        return claim
    return min(claim, math.ceil(settings.growth * max(1, expected.at_first)))


def cap_by_median(
    steps: Sequence[Step], *, earlier: Sequence[Step] = (), settings: CheckSettings = DEFAULT_CHECKS
) -> List[Step]:
    """The steps with the pictures that they count for beside the others': nobody else can check a plant's own number.

    ``earlier``: accepted steps of the rounds before; those of other plants are others too.
    """
    everybody = [*steps, *earlier]
    result = []
    for step in steps:
        others = [other.examples for other in everybody if other.plant != step.plant]
        most = settings.of_others * max(1.0, statistics.median(others)) if others else math.inf
        result.append(replace(step, examples=int(min(step.examples, most))))
    return result


def step_outliers(
    steps: Sequence[Step], *, earlier: Sequence[Step] = (), settings: CheckSettings = DEFAULT_CHECKS
) -> Dict[str, UpdateRefusedError]:
    """The plants whose steps are far longer than the others', each with its refusal.

    Steps are compared per root of the pictures that they count for (``cap_by_median``). With four or more
    (``earlier`` counts: accepted steps of the rounds before) the limit is the median and so many deviations,
    estimated from the median absolute deviation, but at least ``slack`` medians. With two or three it is a
    generous multiple of the lower median. A step alone has nothing to be compared with; ``check_step`` still
    holds it to the head's own length. Short steps are never refused.

    """
    refused: Dict[str, UpdateRefusedError] = {}
    everybody = cap_by_median([*steps, *earlier], settings=settings)
    paces = [step.pace for step in everybody]
    moves = [step.size.statistics for step in everybody]
    pace_limit = _limit(paces, settings.slack, settings)
    move_limit = _limit(moves, settings.slack_of_statistics, settings)
    for step in everybody[: len(steps)]:
        for what, size, sizes, limit in (
            ("its step is far longer than the others'", step.pace, paces, pace_limit),
            (
                "its running statistics move far more than the others'",
                step.size.statistics,
                moves,
                move_limit,
            ),
        ):
            if limit is not None and size > limit and step.plant not in refused:
                usual = f"at most {limit:.4g}, the median being {statistics.median(sizes):.4g}"
                refused[step.plant] = refusal(step.plant, what, seen=f"{size:.4g}", accepted=usual)
    return refused


def _limit(sizes: List[float], slack: float, settings: CheckSettings) -> Optional[float]:
    """The longest step that is still usual, or None where there is nothing to compare with."""
    middle = statistics.median_low(sizes) if sizes else 0.0
    if len(sizes) < 2 or middle <= 0.0:
        return None
    if len(sizes) < ENOUGH_FOR_A_SPREAD:
        return max(slack, settings.slack_of_few) * middle
    middle = statistics.median(sizes)
    spread = NORMAL_MAD * statistics.median(abs(size - middle) for size in sizes)
    return max(middle + settings.deviations * spread, slack * middle)
