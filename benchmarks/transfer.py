"""The transfer table: what base models' frozen features tell about surfaces, set by set.

    python benchmarks/transfer.py [BASE ...] --data DATA [--frozen] [--cache FOLDER] [--most 120] [--size 112]
        [--json FILE]

BASE is a base model's folder; none stands for the one that ships. For each set of pictures in DATA a linear
discriminant in closed form is fitted to the taps (mean and standard deviation of the maps of blocks 2 to 5, and the
hidden layer; with --frozen of the levels that stand still only, as in the product), its covariance scaled to
correlations and shrunk towards the identity, with ten pictures a class and with 80 % of the pictures, five draws each,
groups of one surface kept whole where they are known. Printed: balanced accuracy on the other 20 %, and the AUROC of
the Mahalanobis distance for a class that was left out. Sets that a base
saw in pre-training are marked; the means are over the sets that no base of the table saw.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedspect.data.preprocess import Preprocessing
from fedspect.data.sources import find_pictures
from fedspect.errors import NoPicturesError
from fedspect.files import write_json
from fedspect.model.base import BaseNetwork, default_base, load_base
from fedspect.model.levels import LevelledNetwork

DRAWS = 5
FEW = 10
TRAIN_SHARE = 0.8
SHRINKAGE = 0.1
BATCH = 64
MOST_LEFT_OUT = 8
"""Classes of a set that are left out in turn."""
GROUPS = {
    "deeppcb": r"(group\d+_\d+)_",
    "kth_tips2a": r"(\d+[a-d])-",
    "aitex_fabric": r"(.+)_x\d+",
    "cracks_multi": r"(CRACK500_\d+_\d+|.*(?:DSC|9S6A)\d+)_",
}
"""By set, what pictures of one surface have in common in their names."""
LISTS = {"neu": "neu_split.csv", "ballscrew": "ballscrew_groups.csv"}


@dataclass(frozen=True)
class Surfaces:
    """One set: files, the class and the group of each."""

    name: str
    paths: List[Path]
    labels: np.ndarray
    groups: List[str]


def main() -> None:
    """Compute features, fit, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bases", type=Path, nargs="*", help="base models' folders; none: the one that ships")
    parser.add_argument("--data", type=Path, default=os.environ.get("FEDSPECT_DATA"))
    parser.add_argument("--only", help="names of sets, with commas between")
    parser.add_argument("--most", type=int, default=0, help="pictures of a class at most; 0 takes all")
    parser.add_argument("--size", type=int, help="side in pixels, in place of the base's own")
    parser.add_argument("--frozen", action="store_true", help="only the taps of the levels that stand still")
    parser.add_argument("--cache", type=Path, help="folder that keeps features for another time")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.data is None:
        parser.error("--data or FEDSPECT_DATA says where the pictures are")
    torch.set_num_threads(1)
    bases = {str(path): load_base(path) for path in given.bases} or {"default": default_base()}
    seen = {name: seen_sets(base) for name, base in bases.items()}
    sets = list(find_sets(given.data, given.only.split(",") if given.only else None, given.most))
    rows: List[Dict[str, Any]] = []
    for each in sets:
        for name, base in bases.items():
            features = kept_features(base, each, given.size or base.card.input_size, given.cache)
            figures = measure(features[:, : frozen_width(base)] if given.frozen else features, each)
            rows.append({"set": each.name, "base": name, "seen": each.name in seen[name], **figures})
            print(line(rows[-1]), flush=True)
    ever_seen = set().union(*seen.values())
    means = [mean_of([row for row in rows if row["base"] == name], ever_seen) for name in bases]
    for mean in means:
        print(line(mean))
    if given.json:
        hashes = {name: base.content_hash for name, base in bases.items()}
        write_json(
            given.json,
            {
                "bases": hashes,
                "most": given.most,
                "size": given.size,
                "frozen": given.frozen,
                "rows": rows + means,
            },
        )


def line(row: Dict[str, Any]) -> str:
    """One row of the table."""
    figures = (
        f"{row['few']:6.1f} ± {row['few_deviation']:3.1f}   {row['most']:6.1f} ± {row['most_deviation']:3.1f}"
    )
    unknown = "" if row["unknown"] is None else f"   {row['unknown']:.3f}"
    return f"{row['set']:14} {row['base'][-24:]:24} {'seen' if row['seen'] else '    '} {figures}{unknown}"


def mean_of(rows: Sequence[Dict[str, Any]], ever_seen: set[str]) -> Dict[str, Any]:
    """The means of one base over the sets that no base saw."""
    unseen = [row for row in rows if row["set"] not in ever_seen]
    unknown = [row["unknown"] for row in unseen if row["unknown"] is not None]
    keys = ("few", "few_deviation", "most", "most_deviation")
    figures = {key: float(np.mean([row[key] for row in unseen])) for key in keys}
    return {
        "set": f"mean of {len(unseen)}",
        "base": rows[0]["base"],
        "seen": False,
        **figures,
        "unknown": float(np.mean(unknown)) if unknown else None,
    }


def seen_sets(base: BaseNetwork) -> set[str]:
    """Names of the sets that a base was pre-trained on, as its card says."""
    return {str(source).split()[0] for source in base.card.provenance.get("sources", [])}


def find_sets(data: Path, only: Optional[Sequence[str]], most: int) -> List[Surfaces]:
    """The sets that lie in ``data``, each with at most ``most`` pictures a class.

    Raises:
        NoPicturesError: there are none.

    """
    folders = [data / name for name in ("neu", "ballscrew", "xsdd")] + sorted((data / "surfaces").glob("*"))
    sets = []
    for folder in folders:
        if not folder.is_dir() or (only is not None and folder.name not in only):
            continue
        listed = LISTS.get(folder.name)
        pictures = find_pictures(folder, manifest=data / listed if listed else None).pictures
        kept = [each for each in pictures if each.label is not None]
        order = np.random.default_rng(0).permutation(len(kept))
        count: Dict[str, int] = defaultdict(int)
        chosen = []
        for place in order:
            label = str(kept[place].label)
            count[label] += 1
            if not most or count[label] <= most:
                chosen.append(kept[place])
        names = sorted(count)
        pattern = GROUPS.get(folder.name)
        groups = []
        for each in chosen:
            match = re.match(pattern, each.path.name) if pattern else None
            groups.append(match.group(1) if match else each.group or str(each.path))
        labels = np.asarray([names.index(str(each.label)) for each in chosen])
        sets.append(Surfaces(folder.name, [each.path for each in chosen], labels, groups))
    if not sets:
        raise NoPicturesError("no set of pictures is here", seen=data, accepted="neu, xsdd, surfaces/NAME")
    return sets


def kept_features(base: BaseNetwork, surfaces: Surfaces, size: int, cache: Optional[Path]) -> np.ndarray:
    """The set's features under a base, from the cache if they are there."""
    if cache is None:
        return features_of(base, surfaces.paths, size)
    named = "\n".join([base.content_hash, str(size), *map(str, surfaces.paths)])
    path = cache / f"{surfaces.name}-{hashlib.sha256(named.encode()).hexdigest()[:16]}.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False))
    features = features_of(base, surfaces.paths, size)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, features)
    return features


def features_of(base: BaseNetwork, paths: Sequence[Path], size: int) -> np.ndarray:
    """Means and standard deviations of the tapped maps, float32 (pictures, features)."""
    network = base.network(base.card.classes, seed=0).eval().to(memory_format=torch.channels_last)
    own = base.preprocessing
    preprocessing = Preprocessing(size, own.channels, own.mean, own.std)
    taps: List[Tensor] = []
    hooks = [part.register_forward_hook(tap(taps)) for part in tapped(network)]
    rows = []
    with torch.no_grad():
        for first in range(0, len(paths), BATCH):
            pixels = np.stack([preprocessing.load(path) for path in paths[first : first + BATCH]])
            taps.clear()
            network(torch.from_numpy(preprocessing.normalise(pixels)))
            rows.append(torch.cat(taps, dim=1).numpy())
    for hook in hooks:
        hook.remove()
    return np.concatenate(rows)


def tapped(network: LevelledNetwork) -> List[nn.Module]:
    """CondenseNetV2's blocks from the second on and its hidden layer; of other networks the last levels."""
    levels = dict(network.levels())
    if "block5" in levels:
        last = levels["block5"].get_submodule("activation")
        return [levels["block2"], levels["block3"], levels["block4"], last, levels["hidden"]]
    return list(levels.values())[-6:-1]


def frozen_width(base: BaseNetwork) -> int:
    """How many of the features are those of the levels that stand still: they come first."""
    network = base.network(base.card.classes, seed=0).eval()
    frozen = {name for name, _ in network.levels()[: base.card.default_freeze_levels]}
    taps: List[Tensor] = []
    hooks = [
        part.register_forward_hook(tap(taps)) for part in tapped(network) if owner(network, part) in frozen
    ]
    with torch.no_grad():
        network(torch.zeros(1, network.channels, network.minimum_size, network.minimum_size))
    for hook in hooks:
        hook.remove()
    return sum(each.shape[1] for each in taps)


def owner(network: LevelledNetwork, part: nn.Module) -> str:
    """The name of the level that a module is in."""
    return next(name for name, level in network.levels() if any(each is part for each in level.modules()))


def tap(taps: List[Tensor]) -> Callable[[nn.Module, Any, Tensor], None]:
    """A hook that keeps what a map says about a picture."""

    def hear(module: nn.Module, given: Any, answer: Tensor) -> None:
        if answer.dim() == 4:
            taps.append(answer.mean((2, 3)))
            taps.append(answer.var((2, 3), unbiased=False).clamp(min=0).sqrt())
        else:
            taps.append(answer.flatten(1))

    return hear


def measure(features: np.ndarray, surfaces: Surfaces) -> Dict[str, Any]:
    """Balanced accuracies in per cent with few and with most pictures, and the AUROC for unknown classes."""
    few, most = [], []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        train, test = dealt(surfaces, rng)
        chosen = np.concatenate(
            [rng.permutation(train[surfaces.labels[train] == label])[:FEW] for label in set(surfaces.labels)]
        )
        few.append(balanced(fitted(features, surfaces.labels, chosen), features, surfaces.labels, test))
        most.append(balanced(fitted(features, surfaces.labels, train), features, surfaces.labels, test))
    return {
        "few": float(np.mean(few)),
        "few_deviation": float(np.std(few)),
        "most": float(np.mean(most)),
        "most_deviation": float(np.std(most)),
        "unknown": unknown(features, surfaces),
    }


def dealt(surfaces: Surfaces, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Four fifths of each class and the rest, whole groups on one side, rare classes first."""
    groups = np.asarray(surfaces.groups)
    sides: Dict[str, bool] = {}
    for label in np.argsort(np.bincount(surfaces.labels), kind="stable"):
        members = groups[surfaces.labels == label]
        wanted = TRAIN_SHARE * len(members)
        held = sum(1 for group in members if sides.get(group))
        free = [group for group in dict.fromkeys(members) if group not in sides]
        for group in rng.permutation(free) if free else []:
            size = int((members == group).sum())
            sides[group] = held + size / 2 <= wanted
            held += size * sides[group]
    train = np.asarray([sides[group] for group in groups])
    return np.flatnonzero(train), np.flatnonzero(~train)


@dataclass(frozen=True)
class Discriminant:
    """A linear discriminant: features are centred and scaled, then mapped to where distance is Euclidean."""

    centre: np.ndarray
    scale: np.ndarray
    whiten: Callable[[np.ndarray], np.ndarray]
    means: np.ndarray
    """By class, whitened."""

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distances to the classes: (pictures, classes)."""
        mapped = self.whiten((features - self.centre) / self.scale)
        return np.asarray(((mapped[:, None] - self.means[None]) ** 2).sum(2))


def fitted(features: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Discriminant:
    """Fit a linear discriminant with shrinkage: (1 - s) correlations within classes + s identity."""
    chosen, names = features[rows].astype(np.float64), labels[rows]
    kinds = np.unique(names)
    means = np.stack([chosen[names == kind].mean(0) for kind in kinds])
    within = chosen - means[np.searchsorted(kinds, names)]
    free = max(1, len(rows) - len(kinds))
    scale = np.sqrt((within**2).sum(0) / free)
    scale = np.maximum(scale, 1e-3 * scale.max() + 1e-12)
    # The covariance's own directions come from the pictures' inner products: pictures are fewer than features.
    scaled = within / scale
    squared, turns = np.linalg.eigh(scaled @ scaled.T)
    kept = squared > 1e-9 * squared[-1]
    directions = (scaled.T @ turns[:, kept] / np.sqrt(squared[kept])).T
    spread = (1 - SHRINKAGE) * squared[kept] / free
    factors = 1 / np.sqrt(spread + SHRINKAGE) - 1 / np.sqrt(SHRINKAGE)

    def whiten(given: np.ndarray) -> np.ndarray:
        return np.asarray(given / np.sqrt(SHRINKAGE) + ((given @ directions.T) * factors) @ directions)

    centre = means.mean(0)
    return Discriminant(centre, scale, whiten, whiten((means - centre) / scale))


def balanced(discriminant: Discriminant, features: np.ndarray, labels: np.ndarray, test: np.ndarray) -> float:
    """Mean recall over the classes that the test has, in per cent."""
    answers = discriminant.distances(features[test]).argmin(1)
    truth = labels[test]
    return float(100 * np.mean([(answers[truth == kind] == kind).mean() for kind in np.unique(truth)]))


def unknown(features: np.ndarray, surfaces: Surfaces) -> Optional[float]:
    """AUROC of the distance to the nearest class for a class that was left out, the mean over classes."""
    kinds = np.unique(surfaces.labels)
    if len(kinds) < 3:
        return None
    train, test = dealt(surfaces, np.random.default_rng(0))
    areas = []
    for kind in kinds[:: max(1, -(-len(kinds) // MOST_LEFT_OUT))]:
        known = train[surfaces.labels[train] != kind]
        names = np.searchsorted(np.delete(kinds, kind), surfaces.labels)
        far = fitted(features, names, known).distances(features[test]).min(1)
        strange = surfaces.labels[test] == kind
        if strange.any():
            ranks = far.argsort().argsort()
            wins = ranks[strange].sum() - strange.sum() * (strange.sum() - 1) / 2
            areas.append(wins / (strange.sum() * (~strange).sum()))
    return float(np.mean(areas))


if __name__ == "__main__":
    main()
