"""How well overlapping pictures are found, and how long it takes.

Four measures on a folder of real pictures (seconds are the processor's, one thread):

- *time* of each step for a quarter, half and all of the pictures;
- *agreement* with the groups of a list, as pairs of pictures that share a group, where a list is given;
- *false links*: every picture is also mirrored, and any link between an original and a mirrored picture is false;
- *recall*: two windows of one picture are cut out at random, saved as JPEG of different quality, the second also
  darkened; the share of such pairs that is found, by how much they overlap.

    python benchmarks/overlaps.py DIR [--list CSV] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from PIL import Image

from fedspect.data.decode import read_picture
from fedspect.data.near_duplicates.keypoints import find_keypoints, relief
from fedspect.data.near_duplicates.locality_hashing import find_candidates
from fedspect.data.near_duplicates.overlap import (
    LEAST_CORRELATION,
    LEAST_SIGNIFICANCE,
    compare,
    find_overlaps,
    group_overlapping,
)
from fedspect.data.sources import find_pictures

BINS = (0.1, 0.2, 0.3, 0.4, 0.6, 1.01)


def timed(pictures: Sequence[np.ndarray]) -> Dict[str, Any]:
    """Seconds of each step, and the groups found."""
    start = time.process_time()
    reliefs = [relief(picture) for picture in pictures]
    keypoints = [find_keypoints(surface) for surface in reliefs]
    described = time.process_time()
    candidates = find_candidates(keypoints)
    guessed = time.process_time()
    overlaps = find_overlaps(keypoints, lambda number: reliefs[number])
    compared = time.process_time()
    groups = group_overlapping(len(pictures), [(each.first, each.second) for each in overlaps])
    return {
        "pictures": len(pictures),
        "keypoints": sum(len(each.places) for each in keypoints),
        "candidates": len(candidates),
        "groups": len(set(groups)),
        "seconds describing": round(described - start, 1),
        "seconds guessing": round(guessed - described, 1),
        "seconds comparing": round(compared - guessed - (guessed - described), 1),
        "group of": groups,
    }


def agreement(found: Sequence[int], listed: Sequence[Optional[str]]) -> Dict[str, float]:
    """Pairs in one group: the part of the found ones that is listed, of the listed ones that is found."""
    ours, theirs = np.array(found), np.array(listed)
    upper = np.triu_indices(len(ours), 1)
    one, other = (ours[:, None] == ours)[upper], (theirs[:, None] == theirs)[upper]
    both, expected = (one & other).sum(), one.sum() * other.sum() / len(one)
    return {
        "listed groups": len(set(theirs.tolist())),
        "found pairs that are listed": round(float(both / one.sum()), 3),
        "listed pairs that are found": round(float(both / other.sum()), 3),
        "adjusted Rand index": round(
            float((both - expected) / ((one.sum() + other.sum()) / 2 - expected)), 3
        ),
    }


def mirrored_links(pictures: Sequence[np.ndarray]) -> Dict[str, float]:
    """Links between originals and mirror images, and the most significant correlation among them."""
    both = [*pictures, *(np.ascontiguousarray(picture[:, ::-1]) for picture in pictures)]
    reliefs = [relief(picture) for picture in both]
    links, highest = 0, 0.0
    for first, second, rows, columns, _ in find_candidates(
        [find_keypoints(each) for each in reliefs]
    ).tolist():
        if (first < len(pictures)) != (second < len(pictures)):
            found = compare(reliefs[first], reliefs[second], rows, columns)
            if found is not None and found[1] >= LEAST_CORRELATION:
                highest = max(highest, found[2])
                links += found[2] >= LEAST_SIGNIFICANCE
    return {"false links": links, "highest significance": round(highest, 1)}


def recall(pictures: Sequence[np.ndarray]) -> List[Dict[str, Any]]:
    """The part of pairs of windows that is found, by the share of their overlap."""
    random = np.random.RandomState(0)
    windows, shares = [], []
    for picture in pictures:
        side = int(min(picture.shape) * 0.56)
        spots = [random.randint(0, extent - side + 1, 2) for extent in picture.shape]
        first, second = (picture[y : y + side, x : x + side] for y, x in zip(*spots))
        dark = (255 * (second / 255) ** 1.4 * 0.8 + 10).astype(np.uint8)
        windows += [saved(first, 85), saved(dark, 75)]
        shares.append(float(np.prod([max(0, side - abs(int(a) - int(b))) for a, b in spots])) / side**2)
    reliefs = [relief(window) for window in windows]
    links = find_overlaps([find_keypoints(each) for each in reliefs], lambda number: reliefs[number])
    groups = group_overlapping(len(windows), [(each.first, each.second) for each in links])
    hits = np.array([groups[2 * n] == groups[2 * n + 1] for n in range(len(pictures))])
    rows = []
    for low, high in zip(BINS, BINS[1:]):
        chosen = np.array([low <= share < high for share in shares])
        if chosen.any():
            rows.append(
                {
                    "overlap from": low,
                    "pairs": int(chosen.sum()),
                    "found": round(float(hits[chosen].mean()), 3),
                }
            )
    return rows


def saved(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Pixels after saving them as JPEG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--list", type=Path, help="CSV with path, class and group")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    listing = find_pictures(options.folder, manifest=options.list)
    pictures = [read_picture(picture.path) for picture in listing.pictures]
    steps = [timed(pictures[::every]) for every in (4, 2, 1)]
    groups = steps[-1]["group of"]
    result: Dict[str, Any] = {"steps": [{k: v for k, v in step.items() if k != "group of"} for step in steps]}
    if options.list is not None:
        result["agreement"] = agreement(groups, [picture.group for picture in listing.pictures])
    result["mirrored"] = mirrored_links(pictures)
    result["recall"] = recall(pictures)
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
