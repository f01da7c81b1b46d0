"""Out-of-distribution detection: a picture that is unlike all training pictures is a person's to see.

A version with a closed form measures how far a picture is from the nearest class (squared Mahalanobis distance), in
shares of the limit that held-out pictures drew (``fedspect.discriminant``). Beyond it no probability is believed.
"""

from __future__ import annotations

from typing import Sequence

from fedclient.worker.engines.model import LineAnswer
from fedclient.worker.line.input_guard import Doubts, InputBatch

MOST_SAID = 100.0  # times the limit; beyond it a figure says nothing more


class DistanceGuard:
    """Doubts every picture beyond the limit; none where the version measures no distance."""

    def doubts(self, batch: InputBatch, answer: LineAnswer) -> Sequence[Doubts]:
        """For each picture why no sure verdict may be given."""
        if answer.unlikeness is None:
            return [()] * len(batch)
        return [(_reason(share),) if share > 1 else () for share in answer.unlikeness.tolist()]


def _reason(share: float) -> str:
    times = f"{share:.1f}" if share < MOST_SAID else f"more than {MOST_SAID:.0f}"
    return f"unlike all training pictures: {times} times as far as known ones"
