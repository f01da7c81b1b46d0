"""Checking one file: read it, hash it, decode it, and say in one word what is wrong with it."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence, Union

import numpy as np

from fedspect.data.decode import (
    Header,
    NotAPictureError,
    TooLargePictureError,
    TruncatedPictureError,
    decode_picture,
    read_bytes,
)
from fedspect.data.depth import Levels
from fedspect.data.inspection_cache import InspectionCache
from fedspect.data.near_duplicates.high_pass import reduced_relief
from fedspect.data.near_duplicates.keypoints import Keypoints, find_keypoints
from fedspect.data.pictures import (
    DIGEST_LENGTH,
    NOT_A_PICTURE,
    TOO_LARGE,
    TRUNCATED,
    UNREADABLE,
    Picture,
    Problem,
)
from fedspect.errors import PictureError


@dataclass(frozen=True)
class Good:
    """A picture without a fault; keypoints and relief where they were asked for and not known yet."""

    picture: Picture
    digest: str
    header: Header
    levels: Levels
    keypoints: Optional[Keypoints] = None
    relief: Optional[np.ndarray] = None


@dataclass(frozen=True)
class Bad:
    """What is wrong with a picture; no digest where its bytes could not be read."""

    problem: Problem
    digest: Optional[str]


def check_all(
    pictures: Sequence[Picture], workers: int, known: InspectionCache, reduction: Optional[int]
) -> Iterator[Union[Good, Bad]]:
    """Check pictures in their order with so many threads; with ``reduction``, find their keypoints too."""
    if workers <= 1:
        yield from (_check(picture, known, reduction) for picture in pictures)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda picture: _check(picture, known, reduction), pictures)


def _check(picture: Picture, known: InspectionCache, reduction: Optional[int]) -> Union[Good, Bad]:
    digest = None
    try:
        content = read_bytes(picture.path)
        digest = hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
        if digest in known.faults:
            return Bad(Problem(picture.name, *known.faults[digest]), digest)
        if digest in known.headers and (reduction is None or digest in known.keypoints):
            return Good(picture, digest, known.headers[digest], known.levels[digest])
        read = decode_picture(content, picture.path)
    except PictureError as error:
        return Bad(Problem(picture.name, _kind(error), _detail(error, picture.path)), digest)
    if reduction is None:
        return Good(picture, digest, read.header, read.levels)
    surface = reduced_relief(read.pixels, reduction)
    return Good(picture, digest, read.header, read.levels, find_keypoints(surface), surface)


def _kind(error: PictureError) -> str:
    if isinstance(error, TooLargePictureError):
        return TOO_LARGE
    if isinstance(error, TruncatedPictureError):
        return TRUNCATED
    return NOT_A_PICTURE if isinstance(error, NotAPictureError) else UNREADABLE


def _detail(error: PictureError, path: Path) -> str:
    """The message without the path, which a cached fault may not hold."""
    seen = str(error.seen or "").replace(str(path), "").strip(": ")
    return f"{error.what}: {seen}" if seen else error.what
