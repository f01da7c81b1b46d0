"""Reference statistics: of the pictures that the model learned from, which drift is measured against.

For each picture the features at the cut (their mean over the picture), three plain figures (brightness, contrast,
sharpness) and the confidence of the answer. What is kept is their mean for each class that the model *answers* and
their spread within classes, so a line that sees mostly good pieces does not differ from a balanced folder.

Limits are drawn from the reference pictures themselves: again and again half of them plays the reference, and
windows with a random mixture of classes are drawn from the other half; the limit is the 99th percentile of what
they reach. A picture that is no sample of the plant's own must not widen it, so use pictures that did not
train the model (the golden set) where there are enough.

Shapes: N pictures, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Tuple

import numpy as np
from safetensors.numpy import load_file, save

from fedclient.worker.line.input_guard import plain_figures
from fedclient.worker.line.serving.model_leases import ServedModel
from fedspect.errors import DamagedFileError, NoPicturesError
from fedspect.files import read_json, write_bytes, write_json

PLAIN = ("brightness", "contrast", "sharpness")
STATISTICS = ("features", "spread", "confidence", *PLAIN)
FEWEST = 40  # pictures that a reference needs
DRAWS = 200
QUANTILE = 0.99
SMALLEST_LIMIT = {"features": 0.1, "spread": 0.1, "confidence": 0.25}
"""Below these nothing is worth an alarm, however alike the reference pictures are (standard deviations; for the
spread the logarithm of a ratio)."""
FORMAT = 1
BY_HAND, BY_DEPLOYMENT = "hand", "deployment"


@dataclass(frozen=True)
class BatchStatistics:
    """Statistics of N pictures: ``features`` (N, F), ``plain`` (N, 3), ``confidence`` (N), ``top`` (N)."""

    features: np.ndarray
    plain: np.ndarray
    confidence: np.ndarray
    top: np.ndarray

    def __len__(self) -> int:
        return len(self.top)

    def part(self, chosen: np.ndarray) -> BatchStatistics:
        """The chosen ones."""
        return BatchStatistics(
            self.features[chosen], self.plain[chosen], self.confidence[chosen], self.top[chosen]
        )


def joined(parts: Iterable[BatchStatistics]) -> BatchStatistics:
    """Concatenate batches."""
    listed = list(parts)
    return BatchStatistics(
        np.concatenate([each.features for each in listed]),
        np.concatenate([each.plain for each in listed]),
        np.concatenate([each.confidence for each in listed]),
        np.concatenate([each.top for each in listed]),
    )


def batch_statistics(pixels: np.ndarray, features: np.ndarray, probabilities: np.ndarray) -> BatchStatistics:
    """Compute them from uint8 pixels (N, C, S, S) and a model's answer on them."""
    top = probabilities.argmax(axis=1)
    return BatchStatistics(features.astype(np.float32), plain_figures(pixels), probabilities.max(axis=1), top)


@dataclass(frozen=True)
class ReferenceStatistics:
    """Means by class (K, ...) and spreads within classes; how a window is measured."""

    means: Mapping[str, np.ndarray]
    deviations: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, seen: BatchStatistics, classes: int) -> ReferenceStatistics:
        """From reference pictures; a class without any gets the mean of all."""
        means, deviations = {}, {}
        columns = {"features": seen.features, "plain": seen.plain, "confidence": seen.confidence[:, None]}
        for name, values in columns.items():
            values = values.astype(np.float64)
            by_class = np.repeat(values.mean(axis=0, keepdims=True), classes, axis=0)
            for place in np.unique(seen.top):
                by_class[place] = values[seen.top == place].mean(axis=0)
            means[name] = by_class
            floor = 1e-3 if name != "features" else 1e-3 * max(1e-9, float(np.abs(values).mean() or 0.0))
            deviations[name] = np.maximum((values - by_class[seen.top]).std(axis=0), floor)
        return cls(means, deviations)

    def measure(self, seen: BatchStatistics) -> Dict[str, float]:
        """How far a window of pictures is from the reference, in standard deviations.

        ``features``: root of the mean square over features of their mean deviation; ``spread``: how much wider
        or narrower they scatter (logarithm of a ratio of variances); ``confidence``: its drop; the plain
        figures with their sign.
        """
        scaled = {
            name: (values - self.means[name][seen.top]) / self.deviations[name]
            for name, values in (
                ("features", seen.features),
                ("plain", seen.plain),
                ("confidence", seen.confidence[:, None]),
            )
        }
        found = {name: float(value) for name, value in zip(PLAIN, scaled["plain"].mean(axis=0))}
        found["confidence"] = max(0.0, -float(scaled["confidence"].mean()))
        if seen.features.shape[1]:
            found["features"] = float(np.sqrt((scaled["features"].mean(axis=0) ** 2).mean()))
            found["spread"] = abs(float(np.log(max((scaled["features"] ** 2).mean(), 1e-6))))
        return found


@dataclass(frozen=True)
class DriftReference:
    """Reference statistics with their limits, and the model that they belong to."""

    statistics: ReferenceStatistics
    limits: Mapping[str, float]
    pictures: int
    window: int
    base_hash: str
    version: str
    classes: Tuple[str, ...]
    made_by: str = BY_HAND
    """By hand, or by a deployment: the next deployment replaces only the latter."""

    def fits(self, model: ServedModel, base_hash: str) -> bool:
        """Whether features can be compared: the same base model and classes; confidence needs the version too."""
        return self.base_hash == base_hash and self.classes == tuple(model.classes)

    def save(self, folder: Path) -> None:
        """Write ``reference.safetensors``, then ``reference.json``; raises ``StorageError``."""
        arrays = {f"means.{name}": values for name, values in self.statistics.means.items()}
        arrays.update({f"deviations.{name}": values for name, values in self.statistics.deviations.items()})
        kept = {name: np.ascontiguousarray(values, dtype=np.float64) for name, values in arrays.items()}
        write_bytes(folder / "reference.safetensors", save(kept))
        facts = {
            "format": FORMAT,
            "limits": dict(self.limits),
            "pictures": self.pictures,
            "window": self.window,
            "base_hash": self.base_hash,
            "version": self.version,
            "classes": list(self.classes),
            "made_by": self.made_by,
        }
        write_json(folder / "reference.json", facts)

    @classmethod
    def load(cls, folder: Path) -> DriftReference:
        """Read it back.

        Raises:
            FileNotFoundError: there is none.
            DamagedFileError: it is not what was written.

        """
        facts: Any = read_json(folder / "reference.json")
        try:
            arrays = load_file(str(folder / "reference.safetensors"))
            means = {name[6:]: values for name, values in arrays.items() if name.startswith("means.")}
            deviations = {
                name[11:]: values for name, values in arrays.items() if name.startswith("deviations.")
            }
            classes = tuple(str(name) for name in facts["classes"])
            if {values.shape[0] for values in means.values()} != {len(classes)} or set(means) != set(
                deviations
            ):
                raise ValueError("means and classes do not belong together")
            limits = {name: float(value) for name, value in facts["limits"].items()}
            return cls(
                ReferenceStatistics(means, deviations),
                limits,
                int(facts["pictures"]),
                int(facts["window"]),
                str(facts["base_hash"]),
                str(facts["version"]),
                classes,
                str(facts.get("made_by", BY_HAND)),
            )
        except FileNotFoundError:
            raise
        except Exception as error:  # safetensors raises a class of its own, and files may hold anything
            raise DamagedFileError(
                "the drift reference cannot be read",
                seen=f"{folder}: {error}",
                remedy="make it again with `fedclient drift init`",
            ) from error


def make_reference(
    seen: BatchStatistics, model: ServedModel, base_hash: str, *, window: int, made_by: str = BY_HAND
) -> DriftReference:
    """The reference of pictures that the model has answered; limits without the settings' tolerance.

    Raises:
        NoPicturesError: too few pictures.

    """
    if len(seen) < FEWEST:
        raise NoPicturesError(
            "too few pictures for a drift reference",
            seen=len(seen),
            accepted=f"at least {FEWEST}",
            remedy="point to more pictures: fedclient drift init FOLDER",
        )
    classes = len(model.classes)
    return DriftReference(
        ReferenceStatistics.of(seen, classes),
        _limits(seen, classes, window),
        len(seen),
        window,
        base_hash,
        model.version,
        tuple(model.classes),
        made_by,
    )


def _limits(seen: BatchStatistics, classes: int, window: int) -> Dict[str, float]:
    draw = np.random.default_rng(len(seen))
    reached: Dict[str, list[float]] = {name: [] for name in STATISTICS}
    for _ in range(DRAWS):
        order = draw.permutation(len(seen))
        half = len(order) // 2
        statistics = ReferenceStatistics.of(seen.part(order[:half]), classes)
        other = seen.part(order[half:])
        shares = draw.dirichlet(np.full(classes, 0.5))
        weights = shares[other.top] / np.bincount(other.top, minlength=classes)[other.top]
        if weights.sum() <= 0:
            continue
        chosen = draw.choice(len(other), size=window, p=weights / weights.sum())
        for name, value in statistics.measure(other.part(chosen)).items():
            reached[name].append(abs(value))
    return {
        name: max(float(np.quantile(values, QUANTILE)), SMALLEST_LIMIT.get(name, 0.25))
        for name, values in reached.items()
        if values
    }
