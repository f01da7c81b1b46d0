"""Aggregation of a round: each accepted update read from disk, one at a time, and given to the aggregator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedserver.aggregation.aggregator import Aggregate, Aggregator
from fedserver.aggregation.checking import Accepted
from fedspect.errors import FederationError
from fedspect.update.encoding import decode


def aggregate(aggregator: Aggregator, round_number: int, accepted: Sequence[Accepted]) -> Aggregate:
    """The change that the aggregator makes of the accepted updates (at least one), taken in the order of plants.

    Raises:
        FederationError: the result cannot be used.

    """
    name, megabytes = type(aggregator).__name__, 0.0
    for one in sorted(accepted, key=lambda each: each.spooled.plant):
        change = decode(one.spooled.read().payload, one.spooled.expected.schema)
        megabytes += sum(values.nbytes for values in change.values()) / 1e6
        aggregator.add(one.spooled.plant, one.weight, change)
    found = aggregator.result(round_number)
    bad = [tensor for tensor, values in found.change.items() if not np.isfinite(values).all()]
    if bad:
        raise FederationError(
            "the strategy made a change that is not finite",
            seen=f"{name}, tensor {bad[0]}",
            remedy="choose milder options for the strategy, for example a smaller eta",
        )
    notes = list(found.notes)
    if not aggregator.streams:
        held = f"{name} held {len(accepted)} updates in memory at once, {megabytes:.1f} MB; a mean holds one"
        notes.insert(0, held)
    if aggregator.weighted:
        notes += [
            f"{one.spooled.plant} counts for {one.step.examples} of the {one.claim} pictures that it claims"
            for one in accepted
            if one.claim is not None
        ]
    return Aggregate(found.change, found.shares, notes)
