"""Small surfaces that the tests of the data room draw themselves, and the real pictures where they are."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np
import pytest
from PIL import Image

from fedspect.data.pictures import CheckedPicture, Picture

REAL_DATA = Path(os.environ.get("FEDSPECT_DATA", str(Path(__file__).parents[2] / "shared" / "data")))
needs_neu = pytest.mark.skipif(
    not (REAL_DATA / "neu_split.csv").is_file(), reason="the NEU pictures are not here"
)
needs_ball_screws = pytest.mark.skipif(
    not (REAL_DATA / "ballscrew_groups.csv").is_file(), reason="the ball screw pictures are not here"
)


def strip(seed: int, height: int = 200, width: int = 400) -> np.ndarray:
    """A rough surface, grey uint8 (H, W): noise at three scales."""
    random = np.random.RandomState(seed)
    surface = np.zeros((height, width))
    for scale, strength in ((1, 12.0), (3, 18.0), (9, 25.0)):
        small = random.standard_normal((height // scale + 2, width // scale + 2))
        image = Image.fromarray(small.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
        surface += strength * np.asarray(image)
    return np.clip(surface + 120, 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Pixels as a file's bytes."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def several(*pictures: np.ndarray) -> bytes:
    """A JPEG of several pictures (MPO), as phones and stereo cameras write."""
    content = io.BytesIO()
    first, *others = (Image.fromarray(each) for each in pictures)
    first.save(content, "MPO", save_all=True, append_images=others)
    return content.getvalue()


def write(path: Path, pixels: np.ndarray, **options: object) -> Path:
    """Save pixels under a path whose suffix names the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def folder_of(root: Path, counts: Mapping[str, int], side: int = 48) -> Path:
    """One folder per class with so many different pictures."""
    for place, (label, count) in enumerate(sorted(counts.items())):
        for number in range(count):
            write(root / label / f"{number}.png", strip(1000 * place + number, side, side))
    return root


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; its data is one empty row."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def checked(
    names: Sequence[str],
    labels: Sequence[Optional[str]],
    groups: Optional[Sequence[str]] = None,
    digests: Optional[Sequence[str]] = None,
) -> List[CheckedPicture]:
    """Checked pictures without files."""
    groups = names if groups is None else groups
    digests = [f"{zlib.crc32(name.encode()):032x}" for name in names] if digests is None else digests
    return [
        CheckedPicture(Picture(Path(name), name, label), digest, 64, 64, 1, 8, group)
        for name, label, group, digest in zip(names, labels, groups, digests)
    ]


def sides_of(sides: Mapping[str, Sequence[CheckedPicture]]) -> Dict[str, str]:
    """The side of each picture by name."""
    return {picture.name: side for side, members in sides.items() for picture in members}
