"""Linear discriminant analysis from class statistics: whitening, class means, and what they answer.

The covariance within classes, pooled over all, is scaled to correlations and shrunk towards the identity by ``s``
(0 to 1): ``(1 - s) R + s I = L Lᵀ``. The whitening ``W = L⁻¹ diag(1/σ)`` makes it the identity, so that the squared
Mahalanobis distance of a picture to a class is the plain one of ``z = W (x - c)`` to the class's whitened mean m, and

    logits = (m · z - |m|² / 2) / T        distance² = |z|² - 2 max (m · z - |m|² / 2)

come from one matrix and K vectors. Rounding to the grid adds 1/12 step² to every variance, which also keeps a
feature that never varies from dividing by zero. Everything here is float64 from exact integers; the result is
rounded to float32 once.

Shapes: D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from fedspect.discriminant.statistics import STEP, ClassStatistics
from fedspect.errors import NoPicturesError, SettingsError
from fedspect.update.schema import CONSTANT_PREFIX, Arrays

SHRINKAGE = 0.1
"""What holds where no plant has evaluation pictures."""
ABSENT = -1.0e4
"""The score of a class of which nobody has a picture: never answered."""
ROUNDING = 1.0 / 12.0  # variance of a uniform error of one step
WHITENING, WHITENING_BIAS = CONSTANT_PREFIX + "whitening.weight", CONSTANT_PREFIX + "whitening.bias"
MEANS, MEANS_BIAS = CONSTANT_PREFIX + "means.weight", CONSTANT_PREFIX + "means.bias"
SHARPNESS, LIMIT = CONSTANT_PREFIX + "sharpness", CONSTANT_PREFIX + "limit"


@dataclass(frozen=True)
class Discriminant:
    """The closed form: ``whitening`` (D, D), ``centre`` (D,), ``means`` (K, D) whitened, ``bias`` (K,); float64."""

    whitening: np.ndarray
    centre: np.ndarray
    means: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0
    limit: float = np.inf
    """The squared distance beyond which a picture is unlike all training pictures."""

    def linear(self) -> LinearScores:
        """The same scores straight from the features: enough to answer, not to measure distance."""
        weight = self.means @ self.whitening
        return LinearScores(weight, self.bias - weight @ self.centre)

    def tensors(self) -> Arrays:
        """The head's tensors, float32."""
        single = {
            WHITENING: self.whitening,
            WHITENING_BIAS: -(self.whitening @ self.centre),
            MEANS: self.means,
            MEANS_BIAS: self.bias,
            SHARPNESS: np.array([1.0 / self.temperature]),
            LIMIT: np.array([min(self.limit, float(np.finfo(np.float32).max))]),
        }
        return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in single.items()}


@dataclass(frozen=True)
class LinearScores:
    """``weight`` (K, D) and ``bias`` (K,) of a linear classifier on features."""

    weight: np.ndarray
    bias: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Features (N, D) -> scores (N, K), before any temperature."""
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weight.T + self.bias)


def solve(statistics: ClassStatistics, shrinkage: float = SHRINKAGE) -> Discriminant:
    """The closed form of these sums; every class that has pictures is as likely as any other.

    Raises:
        NoPicturesError: there are no pictures.
        SettingsError: a shrinkage that is not above 0 and at most 1.

    """
    if not 0 < shrinkage <= 1:
        raise SettingsError("such a shrinkage cannot be", seen=shrinkage, accepted="above 0, at most 1")
    counts = statistics.counts
    present = counts > 0
    if not present.any():
        raise NoPicturesError("there are no pictures to learn from", remedy="ask plants for theirs first")
    sums = statistics.sums[present].astype(np.float64)
    held = counts[present].astype(np.float64)
    correlations, deviations = within_classes(statistics)
    shrunk = (1.0 - shrinkage) * correlations
    shrunk[np.diag_indices_from(shrunk)] += shrinkage
    lower = np.linalg.cholesky(shrunk)
    whitening = np.linalg.solve(lower, np.diag(1.0 / (deviations * STEP)))
    class_means = sums / held[:, None] * STEP
    centre = class_means.mean(axis=0)
    means = np.zeros(statistics.shape)
    means[present] = (class_means - centre) @ whitening.T
    bias = np.full(len(counts), ABSENT)
    bias[present] = -0.5 * (means[present] ** 2).sum(axis=1)
    return Discriminant(np.tril(whitening), centre, means, bias)


def within_classes(statistics: ClassStatistics) -> Tuple[np.ndarray, np.ndarray]:
    """Correlations (D, D) and standard deviations (D,), in steps of the grid, of features within their classes."""
    present = statistics.counts > 0
    sums = statistics.sums[present].astype(np.float64)
    held = statistics.counts[present].astype(np.float64)
    within = statistics.moment.astype(np.float64) - (sums / held[:, None]).T @ sums
    within /= max(1.0, float(held.sum() - len(held)))
    deviations = np.sqrt(np.maximum(np.diagonal(within), 0.0) + ROUNDING)
    correlations = (within + within.T) / (2.0 * np.outer(deviations, deviations))
    np.fill_diagonal(correlations, 1.0)
    return correlations, deviations
