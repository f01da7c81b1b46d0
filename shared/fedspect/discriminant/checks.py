"""What class statistics must pass before they are added: nobody can look at the pictures behind them.

Sums of real pictures obey laws that lies have to obey too: the counts are what the plant says it has, no variance
is negative in any direction (the moment within classes is positive semidefinite), and no vector leaves the grid.
What passes can still be a lie about the pictures, yet a bounded one: a plant counts for the pictures that it
enrolled with, each with features of at most ``LARGEST`` steps.
"""

from __future__ import annotations

from typing import Mapping, Optional, Sequence

import numpy as np

from fedspect.discriminant.analysis import within_classes
from fedspect.discriminant.statistics import LARGEST, MOST_PICTURES, ClassStatistics
from fedspect.errors import UpdateRefusedError

GROWTH = 3.0
"""A plant may have so many times the pictures that it enrolled with."""
SLACK = 1e-6  # eigenvalues of correlations that rounding may take below zero


def check_statistics(
    statistics: ClassStatistics,
    *,
    plant: str,
    classes: Sequence[str],
    enrolled: Optional[Mapping[str, int]] = None,
    views: int = 1,
) -> None:
    """Raise ``UpdateRefusedError`` unless these sums can be those of pictures that the plant has.

    Args:
        statistics: as they arrived.
        plant: who sent them.
        classes: the federation's.
        enrolled: pictures by class when the plant described itself; None skips the comparison.
        views: vectors that each picture gave.

    """
    counts, sums = statistics.counts, statistics.sums.astype(np.float64)
    total = statistics.pictures
    if int(counts.min()) < 0 or not 1 <= total <= MOST_PICTURES:
        raise _refused(plant, "an impossible number of pictures", total, f"1 to {MOST_PICTURES}")
    if (counts % views).any():
        raise _refused(plant, "pictures that lack a view", counts.tolist(), f"multiples of {views}")
    if enrolled is not None:
        most = int(np.ceil(GROWTH * views * max(1, sum(enrolled.values()))))
        if total > most:
            raise _refused(plant, "far more pictures than it has", total, f"at most {most}")
    for name, count, row in zip(classes, counts.tolist(), statistics.sums):
        if int(np.abs(row).max()) > LARGEST * count:
            raise _refused(plant, f"features of {name} beyond the grid", int(np.abs(row).max()), None)
    moment = statistics.moment.astype(np.float64)
    diagonal = np.diagonal(moment)
    if float(diagonal.max(initial=0.0)) > float(LARGEST) ** 2 * total:
        raise _refused(plant, "a second moment beyond the grid", float(diagonal.max()), None)
    within = diagonal - (sums**2 / np.maximum(counts, 1)[:, None]).sum(0)
    if float(within.min()) < -0.5:
        raise _refused(plant, "a negative variance", float(within.min()), "0 or more")
    correlations, _ = within_classes(statistics)
    try:
        np.linalg.cholesky(correlations + SLACK * np.eye(len(correlations)))
    except np.linalg.LinAlgError:
        raise _refused(
            plant, "second moments that no pictures have", "not positive semidefinite", None
        ) from None


def _refused(plant: str, what: str, seen: object, accepted: Optional[str]) -> UpdateRefusedError:
    return UpdateRefusedError(
        f"the statistics of {plant} are refused: they tell of {what}", seen=seen, accepted=accepted
    )
