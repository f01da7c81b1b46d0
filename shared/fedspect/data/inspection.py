"""Decoding every listed picture once: what is good, what is wrong, and what belongs together.

A picture with a fault is named with the kind of fault and left out; the rest goes on. Good pictures get a
content hash and a group: the manifest's where it gives one, else pictures of the same piece of surface share
a group.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Optional, Tuple, Union

from fedspect.data.decode import (
    Header,
    NotAPictureError,
    TooLargePictureError,
    TruncatedPictureError,
    decode_with_header,
    read_bytes,
)
from fedspect.data.pictures import (
    DIGEST_LENGTH,
    NOT_A_PICTURE,
    TOO_LARGE,
    TRUNCATED,
    UNREADABLE,
    CheckedPicture,
    Picture,
    Problem,
)
from fedspect.data.sources import Listing
from fedspect.errors import PictureError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Inspection:
    """The good pictures in the listing's order, and every problem, the listing's first."""

    pictures: List[CheckedPicture]
    problems: List[Problem]


def inspect_pictures(
    listing: Listing, *, workers: int = 1, progress: Optional[Progress] = None
) -> Inspection:
    """Decode, hash and group the pictures of a listing.

    ``workers`` threads decode; ``progress`` is told (done, all).
    """
    good: List[Tuple[Picture, str, Header]] = []
    problems = list(listing.problems)
    for done, result in enumerate(_checked(listing.pictures, workers), start=1):
        if isinstance(result, Problem):
            problems.append(result)
        else:
            good.append(result)
        if progress is not None:
            progress(done, len(listing.pictures))
    firsts: Dict[str, str] = {}
    pictures = []
    for picture, digest, header in good:
        group = picture.group or firsts.setdefault(digest, f"{picture.label or 'picture'}-{digest[:12]}")
        pictures.append(
            CheckedPicture(picture, digest, header.width, header.height, header.channels, header.bits, group)
        )
    return Inspection(pictures, problems)


def _checked(
    pictures: Tuple[Picture, ...], workers: int
) -> Iterator[Union[Problem, Tuple[Picture, str, Header]]]:
    if workers <= 1:
        yield from map(_check, pictures)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(_check, pictures)


def _check(picture: Picture) -> Union[Problem, Tuple[Picture, str, Header]]:
    try:
        content = read_bytes(picture.path)
        _, header = decode_with_header(content, picture.path)
    except TooLargePictureError as error:
        return Problem(picture.name, TOO_LARGE, str(error))
    except TruncatedPictureError as error:
        return Problem(picture.name, TRUNCATED, str(error))
    except NotAPictureError as error:
        return Problem(picture.name, NOT_A_PICTURE, str(error))
    except PictureError as error:
        return Problem(picture.name, UNREADABLE, str(error))
    return picture, hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH], header
