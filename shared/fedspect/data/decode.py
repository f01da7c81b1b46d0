"""Reading one picture, within bounds.

A picture comes from somebody's disk, so the file's size and the size that its header claims are checked
before memory is asked for. PNG, JPEG, BMP, TIFF and PNM (PGM, PPM), grey or colour, 8 or 16 bits per channel;
everything is answered as 8 bits.

What a 16-bit file holds is scaled by the camera's depth (``depth.py``), grey and colour alike; where nobody gives
that depth, by the bits that this picture needs. A TIFF whose white is zero is turned round. Of a TIFF with several
pages the first is read, and of a JPEG with several pictures (MPO, as phones and stereo cameras write) the first
too. Transparency, colour profiles, gamma and the orientation that EXIF tells are ignored.
"""

from __future__ import annotations

import contextlib
import functools
import io
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from fedspect.data.depth import Levels, levels_of, to_eight_bits
from fedspect.data.sixteen_bits import Stored, UnreadDepthError, read_stored
from fedspect.errors import PictureError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm")
READERS = (
    PngImagePlugin.PngImageFile,
    JpegImagePlugin.JpegImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    PpmImagePlugin.PpmImageFile,
)
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM")
MAX_PIXELS = 80_000_000
MAX_FILE_BYTES = 512 * 1024 * 1024

# What Pillow warns about (odd EXIF data, many pixels) is read all the same, or refused here and named.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class Header:
    """What a picture's header says: pixels, channels (1 or 3), bits per channel, which of FORMATS."""

    width: int
    height: int
    channels: int
    bits: int
    format: str


@dataclass(frozen=True)
class Decoded:
    """A decoded picture: uint8 (H, W) or (H, W, 3), and what its file says."""

    pixels: np.ndarray
    header: Header
    stored: Optional[Stored] = None
    """The values of a file of more than 8 bits per channel."""

    @functools.cached_property
    def levels(self) -> Levels:
        """The levels that the file stores."""
        return levels_of(self.pixels, 8) if self.stored is None else _levels(self.stored)


class TruncatedPictureError(PictureError):
    """The file ends before the picture does."""


class TooLargePictureError(PictureError):
    """The file or the picture that it unpacks to is beyond the bound; it was not decoded."""


class NotAPictureError(PictureError):
    """The content is none of the accepted formats, whatever the file's name says."""


def read_bytes(path: Path) -> bytes:
    """The file's bytes, at most MAX_FILE_BYTES.

    Raises:
        PictureError: missing, not readable, empty or too large.

    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # opening a pipe would wait for ever
            raise PictureError("a picture cannot be read", seen=f"{path}: it is not a file")
        if about.st_size > MAX_FILE_BYTES:
            raise TooLargePictureError(
                "a picture's file is too large", seen=path, accepted=f"up to {MAX_FILE_BYTES // 2**20} MiB"
            )
        content = path.read_bytes()
    except OSError as error:
        raise PictureError("a picture cannot be read", seen=f"{path}: {error.strerror or error}") from error
    if not content:
        raise TruncatedPictureError("a picture's file is empty", seen=path)
    return content


def read_header(content: bytes, path: Path) -> Header:
    """What the header of a picture says; no pixel is decoded.

    Raises:
        PictureError: not an accepted format, or too many pixels.

    """
    with _opened(content, path) as image:
        return _header(image, content)


def decode(content: bytes, path: Path, *, channels: int = 1, bit_depth: Optional[int] = None) -> np.ndarray:
    """Decode a file's bytes; ``path`` is for messages only. Shapes, bounds and errors as ``read_picture``."""
    return decode_picture(content, path, channels=channels, bit_depth=bit_depth).pixels


def decode_picture(
    content: bytes, path: Path, *, channels: int = 1, bit_depth: Optional[int] = None
) -> Decoded:
    """The decoded picture with what its file says; as ``decode``."""
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    mode = "L" if channels == 1 else "RGB"
    with _opened(content, path) as image:
        header = _header(image, content)
        try:
            stored = read_stored(image, content)
            if stored is None:
                return Decoded(np.asarray(image.convert(mode)), header)
            return Decoded(np.asarray(_scaled(stored, bit_depth).convert(mode)), header, stored)
        except UnreadDepthError as error:
            raise PictureError(
                "a picture's values cannot be read: more than 16 bits per channel, or arranged in another way",
                seen=f"{path}: {error}",
                accepted="8 or 16 bits per channel, whole numbers",
                remedy="save it as PNG of 8 or 16 bits",
            ) from error
        except MemoryError as error:
            raise TooLargePictureError("there is not enough memory for a picture", seen=path) from error
        except Exception as error:  # a foreign decoder may raise anything on a damaged file
            if any(
                word in str(error).lower() for word in ("truncated", "not enough image data", "reached eof")
            ):
                raise TruncatedPictureError(
                    "a picture's file ends before the picture does",
                    seen=f"{path}: {len(content):,} bytes for {header.width} x {header.height} pixels",
                    remedy="copy or export it again, or remove it",
                ) from error
            raise PictureError(
                "a picture is damaged", seen=f"{path}: {error}", remedy="export it again or remove it"
            ) from error


def read_picture(path: Path, *, channels: int = 1, bit_depth: Optional[int] = None) -> np.ndarray:
    """Read a picture as uint8, (H, W) for one channel and (H, W, 3) for three.

    Colour becomes grey by ITU-R 601; grey becomes three equal channels. ``bit_depth`` is the camera's, for files of
    16 bits.

    Raises:
        PictureError: missing, damaged, truncated, not a picture, or beyond MAX_PIXELS or MAX_FILE_BYTES;
            the message names the file.

    """
    return decode(read_bytes(path), path, channels=channels, bit_depth=bit_depth)


def _levels(stored: Stored) -> Levels:
    return levels_of(stored.values, stored.depth, negative=stored.negative)


def _scaled(stored: Stored, bit_depth: Optional[int]) -> Image.Image:
    depth = stored.depth or bit_depth or _levels(stored).needed
    table = to_eight_bits(depth, negative=stored.negative)
    pixels = table[stored.values]
    if pixels.ndim == 2:
        return Image.fromarray(pixels)
    bands = [Image.fromarray(np.ascontiguousarray(pixels[:, :, band])) for band in range(pixels.shape[2])]
    return Image.merge(stored.mode, bands)


def _opened(content: bytes, path: Path) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:  # of Pillow's own limit, which lies above ours
        raise _too_many_pixels(path, _claimed_size(content)) from error
    except UnidentifiedImageError as error:
        raise NotAPictureError(
            "a file is not a picture, or its beginning is damaged", seen=path, accepted=", ".join(FORMATS)
        ) from error
    except Exception as error:  # a foreign decoder may raise anything on a damaged file
        raise PictureError("a picture is damaged", seen=f"{path}: {error}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(path, f"{width} x {height} pixels")
    return image


def _claimed_size(content: bytes) -> str:
    """What the header of a picture says that Pillow refuses to open."""
    for reader in READERS:
        with contextlib.suppress(Exception), reader(io.BytesIO(content)) as image:
            return f"{image.width} x {image.height} pixels"
    return "far too many"


def _too_many_pixels(path: Path, size: str) -> PictureError:
    return TooLargePictureError(
        "a picture unpacks to too many pixels; it was not decoded",
        seen=f"{path}: {size}",
        accepted=f"up to {MAX_PIXELS // 10**6} million pixels",
        remedy="cut it into smaller pictures, or remove it",
    )


def _header(image: Image.Image, content: bytes) -> Header:
    grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    bits = 16 if image.mode.startswith("I") else 32 if image.mode == "F" else 8
    if image.format == "TIFF":
        tag = getattr(image, "tag_v2", {}).get(258, bits)
        bits = int(tag[0]) if isinstance(tag, tuple) else int(tag)
    elif image.format == "PNG" and content[12:16] == b"IHDR":
        bits = max(8, content[24])
        grey = content[25] in (0, 4)
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    return Header(image.width, image.height, 1 if grey else 3, bits, kind)
