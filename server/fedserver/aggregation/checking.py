"""Update checks: which of the answers on disk may touch the model, and how much each counts.

An answer is kept as the bytes that arrived. When the round closes, each is read twice, one at a time: once to check
it and to measure its step, once to aggregate it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedspect.errors import UpdateError, UpdateRefusedError
from fedspect.update.change import StepSize
from fedspect.update.checks import (
    DEFAULT_CHECKS,
    CheckSettings,
    Expected,
    Step,
    cap_by_enrolment,
    cap_by_median,
    check_reply,
    check_step,
    refusal,
    step_outliers,
)
from fedspect.update.encoding import largest_message
from fedspect.update.round_messages import MAX_HEADER_BYTES, RoundReply
from fedspect.update.schema import Schema


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
            step = Step(one.plant, size, cap_by_enrolment(reply.num_examples, one.expected, settings))
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
        for step in cap_by_median(usual, earlier=earlier, settings=settings)
    ]
    return [one for one in accepted if one.weight > 0], {**refused, **outliers}


def _accepted(spooled: Spooled, step: Step, claim: int, discount: float) -> Accepted:
    weight = step.examples * discount**spooled.late_by
    return Accepted(spooled, step, weight, claim if claim > step.examples else None)
