"""Reading files of 16 bits per channel whole, which Pillow does for grey only: of colour it keeps the upper byte.

Pillow's unpackers name the byte order, and take the upper byte of each value. So a file is decoded twice, the second
time under the other order, and the two bytes are put together. A grey PNG with alpha has no such unpacker, but its
bytes are those of an RGBA picture of 8 bits.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from PIL import Image, ImageFile, PpmImagePlugin

NATIVE = "L" if sys.byteorder == "little" else "B"
OTHER = {"L": "B", "B": "L", "N": "B" if NATIVE == "L" else "L"}
COLOUR = ("RGB;16", "RGBA;16", "RGBX;16", "CMYK;16")
PHOTOMETRIC, BITS_PER_SAMPLE, PLANAR = 262, 258, 284  # tags of TIFF
WHITE_IS_ZERO = 0


class UnreadDepthError(ValueError):
    """More than 8 bits per channel in a form that is not read: Pillow would give something else."""


@dataclass(frozen=True)
class Stored:
    """Values as a file stores them: uint16 (H, W), or (H, W, B) of ``mode``'s bands; the rest as in ``Levels``."""

    values: np.ndarray
    mode: str
    depth: Optional[int] = None
    negative: bool = False


def read_stored(image: Image.Image, content: bytes) -> Optional[Stored]:
    """The values of an opened picture of more than 8 bits per channel; None of one with 8 or fewer.

    Raises:
        UnreadDepthError: the values are no whole numbers of 16 bits, or are arranged in a way that is not read.

    """
    if image.format == "PNG":
        return _png(image, content)
    if image.format == "TIFF":
        return _tiff(image, content)
    if image.format == "PPM":
        return _ppm(image, content)
    return None


def _png(image: Image.Image, content: bytes) -> Optional[Stored]:
    if content[12:16] != b"IHDR" or content[24] != 16:
        return None
    kind = content[25]
    if kind == 0:
        return Stored(_grey(image), "L")
    if kind == 4:
        header = b"IHDR" + content[16:24] + b"\x08\x06" + content[26:29]
        bytewise = content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
        with Image.open(io.BytesIO(bytewise), formats=("PNG",)) as opened:
            pairs = np.asarray(opened).astype(np.uint16)
        return Stored(pairs[:, :, 0] << 8 | pairs[:, :, 1], "L")
    return _colour(content, "PNG", "RGB")


def _tiff(image: Image.Image, content: bytes) -> Optional[Stored]:
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, 8)
    bits = max(bits) if isinstance(bits, tuple) else bits
    if image.mode.startswith(("I", "F")):
        negative = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
        return Stored(_grey(image), "L", bits if bits < 16 else None, negative)
    if bits <= 8:
        return None
    if tags.get(PLANAR, 1) != 1:
        raise UnreadDepthError(f"{bits} bits per channel, each channel by itself")
    return _colour(content, "TIFF", "CMYK" if image.mode == "CMYK" else "RGB")


def _ppm(image: Image.Image, content: bytes) -> Optional[Stored]:
    assert isinstance(image, PpmImagePlugin.PpmImageFile)
    decoder, _, offset, arguments = image.tile[0]
    top = arguments[1] if isinstance(arguments, tuple) else 65535
    if image.mode.startswith(("I", "F")):
        return Stored(_grey(image), "L", None if top == 65535 else 16)  # Pillow scales what is below
    if image.mode != "RGB" or not isinstance(arguments, tuple) or top != 65535:
        return None
    if decoder != "ppm":
        raise UnreadDepthError("16 bits per channel as text")
    width, height = image.size
    values = np.frombuffer(content, ">u2", 3 * width * height, offset)
    return Stored(values.astype(np.uint16).reshape(height, width, 3), "RGB")


def _grey(image: Image.Image) -> np.ndarray:
    image.load()
    values = np.asarray(image)
    if values.dtype.kind == "f" or (values.size and (int(values.max()) > 65535 or int(values.min()) < 0)):
        raise UnreadDepthError("fractions, signed numbers or more than 16 bits per channel")
    return values.astype(np.uint16)


def _colour(content: bytes, kind: str, mode: str) -> Stored:
    """Both bytes of each value; what a picture has beside ``mode``'s bands is its transparency."""
    bands = len(mode)
    upper = _decoded(content, kind, swapped=False)[:, :, :bands]
    return Stored(upper.astype(np.uint16) << 8 | _decoded(content, kind, swapped=True)[:, :, :bands], mode)


def _decoded(content: bytes, kind: str, *, swapped: bool) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=(kind,)) as image:
        assert isinstance(image, ImageFile.ImageFile)
        if swapped:
            image.tile = [(*tile[:3], _swapped(tile[3])) for tile in image.tile]  # type: ignore[misc]
        else:
            for tile in image.tile:
                _swapped(tile[3])
        decoded: np.ndarray = np.asarray(image)
    return decoded


def _swapped(arguments: Any) -> Any:
    """A decoder's arguments with the raw mode of the other byte order."""
    if isinstance(arguments, tuple):
        return (_swapped(arguments[0]), *arguments[1:])
    mode = str(arguments)
    if mode[:-1] not in COLOUR or mode[-1] not in OTHER:
        raise UnreadDepthError(f"16 bits per channel as {mode}")
    return mode[:-1] + OTHER[mode[-1]]
