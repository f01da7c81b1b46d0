"""How good candidates of the closed form are on held-out pictures, in whole numbers that plants can add up.

Integers for the reason that the statistics are integers: what is chosen by them does not depend on who held which
picture. For each candidate: pictures by true and answered class, the log loss at each temperature of a fixed grid
in 2**-16 nats, and, where it can measure distance, how many pictures lie in each bin of squared distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence

import numpy as np

from fedspect.discriminant.analysis import Discriminant, LinearScores
from fedspect.errors import UpdateRefusedError

TEMPERATURES = tuple(float(2.0 ** (power / 4.0)) for power in range(-4, 33))
"""From a half to 256: with D features, the closed form is too sure by up to a factor of about sqrt(D)."""
NATS = 2.0**16
MOST_LOSS = 64.0  # nats that one picture costs at most
BINS = 256
PER_DOUBLING = 8.0  # bins for each doubling of the squared distance
ENOUGH = 100
"""From so many held-out pictures on, one of a hundred can be told apart."""
FEWEST = 20
"""With fewer held-out pictures than this nothing is chosen by them: the defaults hold."""
TEMPERATURE = 16.0
"""The default."""
WIDER = 1.5


@dataclass(frozen=True)
class Scores:
    """Sums over held-out pictures; int64.

    ``confusion`` (C, K, K) of each candidate: true class by row; ``losses`` (C, T); ``distances`` (BINS,) of the last
    candidate that measures them, zeros otherwise.
    """

    confusion: np.ndarray
    losses: np.ndarray
    distances: np.ndarray

    @classmethod
    def none(cls, candidates: int, classes: int) -> Scores:
        """The scores on no picture."""
        return cls(
            np.zeros((candidates, classes, classes), np.int64),
            np.zeros((candidates, len(TEMPERATURES)), np.int64),
            np.zeros(BINS, np.int64),
        )

    @property
    def pictures(self) -> int:
        """Held-out pictures."""
        return int(self.confusion[0].sum()) if len(self.confusion) else 0

    def __add__(self, other: Scores) -> Scores:
        """The scores on the pictures of both."""
        return Scores(
            self.confusion + other.confusion, self.losses + other.losses, self.distances + other.distances
        )

    def right(self, candidate: int) -> int:
        """Pictures that a candidate answered rightly."""
        return int(np.trace(self.confusion[candidate]))


def score(candidates: Sequence[LinearScores], features: np.ndarray, labels: np.ndarray) -> Scores:
    """Let candidates answer held-out pictures: features (N, D), class numbers (N,)."""
    empty = Scores.none(len(candidates), candidates[0].weight.shape[0])
    confusion, losses = empty.confusion, empty.losses
    for place, candidate in enumerate(candidates):
        found = candidate.scores(features)
        np.add.at(confusion[place], (labels, found.argmax(1)), 1)
        for column, temperature in enumerate(TEMPERATURES):
            loss = np.minimum(_log_losses(found / temperature, labels), MOST_LOSS)
            losses[place, column] = int(np.rint(loss * NATS).astype(np.int64).sum())
    return empty


def distance_counts(discriminant: Discriminant, features: np.ndarray) -> np.ndarray:
    """How many pictures lie in each bin of squared distance to the nearest class: int64 (BINS,)."""
    places = np.floor(np.log2(np.maximum(squared_distances(discriminant, features), 1.0)) * PER_DOUBLING)
    return np.bincount(np.minimum(places, BINS - 1).astype(np.int64), minlength=BINS).astype(np.int64)


def squared_distances(discriminant: Discriminant, features: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distances (N,) to the nearest class, of features (N, D)."""
    whitened = (np.asarray(features, dtype=np.float64) - discriminant.centre) @ discriminant.whitening.T
    nearest = (whitened @ discriminant.means.T + discriminant.bias).max(axis=1)
    return np.asarray(np.maximum((whitened**2).sum(axis=1) - 2.0 * nearest, 0.0))


def best_temperature(scores: Scores, candidate: int) -> float:
    """The temperature at which a candidate's log loss is smallest; the default where too few were held out."""
    if scores.pictures < FEWEST:
        return TEMPERATURE
    return TEMPERATURES[int(scores.losses[candidate].argmin())]


def best_candidate(scores: Scores) -> int:
    """The candidate with most right answers, by log loss among equals; the first where too few were held out."""
    order: List[int] = sorted(
        range(len(scores.confusion)),
        key=lambda place: (-scores.right(place), int(scores.losses[place].min())),
    )
    return order[0] if scores.pictures >= FEWEST else 0


def distance_limit(counts: np.ndarray, asked: float) -> float:
    """The squared distance that a share ``asked`` of held-out pictures exceeds; infinite where there are none.

    The bound is the edge of a bin. With fewer than ``ENOUGH`` pictures the largest distance seen, and half as much
    again, has to do.
    """
    pictures = int(counts.sum())
    if not pictures:
        return float("inf")
    enough = pictures >= ENOUGH
    beyond = int(np.floor(asked * pictures)) if enough else 0
    kept = np.cumsum(counts) >= pictures - beyond
    edge = 2.0 ** ((int(kept.argmax()) + 1) / PER_DOUBLING)
    return float(edge if enough else WIDER * edge)


def check_scores(scores: Scores, *, plant: str, candidates: int, classes: int, most: int) -> None:
    """Raise ``UpdateRefusedError`` unless these can be a plant's scores of so many candidates."""
    fits = (
        scores.confusion.shape == (candidates, classes, classes)
        and scores.losses.shape == (candidates, len(TEMPERATURES))
        and scores.distances.shape == (BINS,)
        and min(
            scores.confusion.min(initial=0), scores.losses.min(initial=0), scores.distances.min(initial=0)
        )
        >= 0
    )
    pictures = scores.confusion.sum(axis=(1, 2)) if fits else np.zeros(0)
    if not fits or len(set(pictures.tolist())) > 1 or scores.pictures > most:
        raise UpdateRefusedError(
            f"the scores of {plant} are refused: they are of other candidates or pictures",
            seen=f"{tuple(scores.confusion.shape)}, {pictures[:3].tolist()} pictures",
            accepted=f"{candidates} candidates, {classes} classes, the same pictures for each, at most {most}",
        )


def _log_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels])
