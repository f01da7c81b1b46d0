"""Class statistics: sufficient statistics of linear discriminant analysis, as exact integer sums.

A feature vector is rounded to a fixed grid, ``q = round(x / STEP)`` held to ``|q| <= LARGEST``, and all that
travels is made of sums over pictures: how many of each class, the sum of q by class, and the sum of q qᵀ over all
classes. Integer sums have no order, so whoever holds which picture, however many plants there are and whoever
answers first does not change one bit of them, nor of what follows from them; and what was added can be
subtracted again exactly.

Bit width: ``|q| < 2**15``, so a product is below 2**30 and a sum over at most ``MOST_PICTURES = 2**23`` pictures
stays below 2**53. It fits int64 with ten bits to spare, and float64 holds it exactly, which is why a matrix
product of BLAS (in any order, with any number of threads) gives the exact sum.

Shapes: N pictures, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Tuple

import numpy as np

from fedspect.errors import UpdateRefusedError

STEP = 2.0**-10
"""The grid. Features of the base models have standard deviations of 0.02 and more: 20 steps."""
LARGEST = 2**15 - 1
"""Features beyond 32 are held there."""
MOST_PICTURES = 2**23
"""Of all plants together, views counted: 8.4 million."""
BATCH = 4096  # pictures whose products are summed at once


def quantised(features: np.ndarray) -> np.ndarray:
    """Features (N, D) of any float on the grid: int64 (N, D)."""
    steps = np.rint(np.asarray(features, dtype=np.float64) / STEP)
    return np.asarray(np.clip(steps, -LARGEST, LARGEST), dtype=np.int64)


@dataclass(frozen=True)
class ClassStatistics:
    """Sums over pictures, in steps of the grid; all int64.

    ``counts`` (K,) pictures by class, ``sums`` (K, D) of their vectors, ``moment`` (D, D) the sum of outer products.
    """

    counts: np.ndarray
    sums: np.ndarray
    moment: np.ndarray

    @classmethod
    def empty(cls, classes: int, features: int) -> ClassStatistics:
        """The sums over no picture."""
        return cls(
            np.zeros(classes, np.int64),
            np.zeros((classes, features), np.int64),
            np.zeros((features, features), np.int64),
        )

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray, classes: int) -> ClassStatistics:
        """The sums over pictures with these features (N, D) and class numbers (N,)."""
        found = cls.empty(classes, features.shape[1])
        for first in range(0, len(features), BATCH):
            rows = quantised(features[first : first + BATCH])
            names = np.asarray(labels[first : first + BATCH], dtype=np.int64)
            np.add.at(found.counts, names, 1)
            np.add.at(found.sums, names, rows)
            exact = rows.astype(np.float64)
            found.moment[...] += (exact.T @ exact).astype(np.int64)
        return found

    @property
    def pictures(self) -> int:
        """All pictures together."""
        return int(self.counts.sum())

    @property
    def shape(self) -> Tuple[int, int]:
        """Classes and features."""
        return self.sums.shape[0], self.sums.shape[1]

    def __add__(self, other: ClassStatistics) -> ClassStatistics:
        """The sums over the pictures of both.

        Raises:
            UpdateRefusedError: together they are more pictures than the sums hold exactly, or of another shape.

        """
        self._fits(other)
        if self.pictures + other.pictures > MOST_PICTURES:
            raise UpdateRefusedError(
                "more pictures than exact sums hold",
                seen=self.pictures + other.pictures,
                accepted=f"{MOST_PICTURES} of all plants together",
                remedy="let plants use fewer orientations, or leave pictures out",
            )
        return ClassStatistics(self.counts + other.counts, self.sums + other.sums, self.moment + other.moment)

    def __sub__(self, other: ClassStatistics) -> ClassStatistics:
        """The sums as if the pictures of ``other`` had never been added."""
        self._fits(other)
        return ClassStatistics(self.counts - other.counts, self.sums - other.sums, self.moment - other.moment)

    def __eq__(self, other: object) -> bool:
        """Whether all sums are the same."""
        return isinstance(other, ClassStatistics) and all(
            np.array_equal(mine, theirs)
            for mine, theirs in (
                (self.counts, other.counts),
                (self.sums, other.sums),
                (self.moment, other.moment),
            )
        )

    def _fits(self, other: ClassStatistics) -> None:
        if self.shape != other.shape:
            raise UpdateRefusedError(
                "statistics of other classes or features cannot be added",
                seen=other.shape,
                accepted=str(self.shape),
            )


def total(parts: Iterable[ClassStatistics], classes: int, features: int) -> ClassStatistics:
    """All of them added up; the sums over no picture where there are none."""
    added = ClassStatistics.empty(classes, features)
    for part in parts:
        added = added + part
    return added
