"""From the plants' statistics to candidates, and from their scores to the closed form that the run begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedserver.closed_form.settings import Orientations
from fedspect.discriminant.analysis import SHRINKAGE, Discriminant, solve
from fedspect.discriminant.messages import ORIENTATION_GROUPS
from fedspect.discriminant.scores import NATS, Scores, best_candidate, best_temperature, distance_limit
from fedspect.discriminant.statistics import ClassStatistics, total

SHRINKAGES = (SHRINKAGE, 0.03, 0.01, 0.3)
"""What is tried; the first is the default."""
GROUPS = tuple(ORIENTATION_GROUPS)
UNTO: Mapping[str, int] = {"as-it-lies": 1, "half-turn": 2, "mirrored": 3, "all": 4, "auto": 4}


def groups_of(orientations: Orientations) -> list[str]:
    """The orientation groups that plants are asked for."""
    return list(GROUPS[: UNTO[orientations]])


@dataclass(frozen=True)
class Candidate:
    """One closed form, and how it came about."""

    orientations: tuple[str, ...]
    shrinkage: float
    discriminant: Discriminant


@dataclass(frozen=True)
class Chosen:
    """The candidate that answered held-out pictures best."""

    place: int
    candidate: Candidate
    scores: Scores

    @property
    def discriminant(self) -> Discriminant:
        """With the temperature that fits it best."""
        return replace(self.candidate.discriminant, temperature=best_temperature(self.scores, self.place))

    @property
    def loss(self) -> float | None:
        """Nats a picture, at the best temperature."""
        pictures = self.scores.pictures
        return float(self.scores.losses[self.place].min()) / NATS / pictures if pictures else None


def sums_of(
    parts: Iterable[Mapping[str, ClassStatistics]], groups: Sequence[str], shape: tuple[int, int]
) -> dict[str, ClassStatistics]:
    """All plants' statistics added up, by group."""
    found = {group: ClassStatistics.empty(*shape) for group in groups}
    for part in parts:
        for group in groups:
            found[group] = found[group] + part[group]
    return found


def candidates(sums: Mapping[str, ClassStatistics], orientations: Orientations) -> list[Candidate]:
    """Every shrinkage with the orientations that were asked for; with "auto", each choice of those."""
    groups = [group for group in GROUPS if group in sums]
    fewest = 1 if orientations == "auto" else len(groups)
    found = []
    for count in range(fewest, len(groups) + 1):
        used = groups[:count]
        classes, features = sums[used[0]].shape
        together = total((sums[group] for group in used), classes, features)
        found += [Candidate(tuple(used), each, solve(together, each)) for each in SHRINKAGES]
    return found


def choose(found: Sequence[Candidate], scores: Scores | None) -> Chosen:
    """The best by the plants' scores; the first, with the defaults, where no plant held pictures out."""
    classes = len(found[0].discriminant.bias)
    known = scores if scores is not None else Scores.none(len(found), classes)
    place = best_candidate(known)
    return Chosen(place, found[place], known)


def with_limit(discriminant: Discriminant, scores: Scores | None, asked: float) -> Discriminant:
    """The closed form with the distance beyond which the line asks."""
    if scores is None:
        return discriminant
    return replace(discriminant, limit=distance_limit(scores.distances, asked))
