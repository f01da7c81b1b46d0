"""What an inspection found, kept in one file, so that the next inspection of the same pictures takes a
moment.

Everything is filed under the content hash of a picture: a renamed file is known, a changed one is not. The
file holds numbers and JSON only (an ``.npz`` without pickled objects). A file that is damaged, of another
version or too large is treated as absent: it can always be made again.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

import numpy as np

from fedspect import files
from fedspect.data.decode import Header
from fedspect.data.depth import Levels
from fedspect.data.near_duplicates.keypoints import DESCRIPTION_LENGTH, KEYPOINTS_VERSION, Keypoints

FORMAT = "fedspect inspection 2"
MAX_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class OverlapLink:
    """Two pictures, by content hash, that overlap; the numbers are those of ``overlap.Overlap``."""

    first: str
    second: str
    rows: int
    columns: int
    share: float
    correlation: float
    significance: float


@dataclass
class InspectionCache:
    """Facts by content hash: headers and levels of good pictures, (kind, detail) of bad ones, landmarks, and overlaps.

    ``compared`` are the pictures whose overlaps among each other are all known, at one ``reduction``.
    """

    reduction: Optional[int] = None
    headers: Dict[str, Header] = field(default_factory=dict)
    levels: Dict[str, Levels] = field(default_factory=dict)
    faults: Dict[str, Tuple[str, str]] = field(default_factory=dict)
    keypoints: Dict[str, Keypoints] = field(default_factory=dict)
    links: List[OverlapLink] = field(default_factory=list)
    compared: Set[str] = field(default_factory=set)

    def save(self, path: Path) -> None:
        """Write everything, whole or not at all; raises StorageError."""
        digests = sorted(self.keypoints)
        kept = [self.keypoints[digest] for digest in digests]
        about = {
            "format": FORMAT,
            "landmarks version": KEYPOINTS_VERSION,
            "reduction": self.reduction,
            "headers": {digest: asdict(header) for digest, header in sorted(self.headers.items())},
            "levels": {digest: asdict(levels) for digest, levels in sorted(self.levels.items())},
            "faults": dict(sorted(self.faults.items())),
            "links": [asdict(link) for link in self.links],
            "compared": sorted(self.compared),
            "landmarks": digests,
        }
        content = io.BytesIO()
        np.savez_compressed(
            content,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            counts=np.array([len(each.places) for each in kept], np.int32),
            places=np.concatenate([np.zeros((0, 2), np.int16), *[each.places for each in kept]]),
            descriptions=np.concatenate(
                [np.zeros((0, DESCRIPTION_LENGTH), np.int8), *[each.descriptions for each in kept]]
            ),
        )
        files.write_bytes(path, content.getvalue())

    @staticmethod
    def load(path: Optional[Path]) -> InspectionCache:
        """What an earlier inspection kept; nothing where there is no usable file."""
        try:
            if path is None or not path.is_file() or path.stat().st_size > MAX_BYTES:
                return InspectionCache()
            with np.load(str(path), allow_pickle=False) as arrays:
                return _unpacked({name: arrays[name] for name in arrays.files})
        except Exception:  # zip, zlib, numpy and even a tokeniser raise their own of a damaged file
            return InspectionCache()


def _unpacked(arrays: Dict[str, Any]) -> InspectionCache:
    about = json.loads(arrays["about"].tobytes().decode())
    if about["format"] != FORMAT or about["landmarks version"] != KEYPOINTS_VERSION:
        return InspectionCache()
    counts, places, descriptions = arrays["counts"], arrays["places"], arrays["descriptions"]
    ends = np.cumsum(counts)
    digests = about["landmarks"]
    total = int(ends[-1]) if len(ends) else 0
    if (
        len(counts) != len(digests)
        or places.shape != (total, 2)
        or descriptions.shape != (total, DESCRIPTION_LENGTH)
    ):
        return InspectionCache()
    return InspectionCache(
        reduction=about["reduction"],
        headers={digest: Header(**header) for digest, header in about["headers"].items()},
        levels={digest: Levels(**about["levels"][digest]) for digest in about["headers"]},
        faults={digest: (str(kind), str(detail)) for digest, (kind, detail) in about["faults"].items()},
        keypoints={
            digest: Keypoints(places[end - count : end], descriptions[end - count : end])
            for digest, count, end in zip(digests, counts.tolist(), ends.tolist())
        },
        links=[OverlapLink(**link) for link in about["links"]],
        compared=set(about["compared"]),
    )
