"""Files as cameras of every kind write them, made byte by byte: PNG, TIFF and PGM of 8 and 16 bits."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Optional

import numpy as np

GREY, GREY_ALPHA, RGB, RGBA = "grey", "grey with alpha", "rgb", "rgba"
BANDS = {GREY: 1, GREY_ALPHA: 2, RGB: 3, RGBA: 4}


@dataclass(frozen=True)
class Camera:
    """How a camera stores a surface: format, arrangement, bits, and what is wrong with it."""

    kind: str = "png"
    """"png", "tiff" or "pgm"."""
    arrangement: str = GREY
    bits: int = 8
    big_endian: bool = False
    white_is_zero: bool = False
    stuck: int = 0
    """Pixels that always read the highest value of the file."""

    @property
    def top(self) -> int:
        """The value of full light."""
        return (1 << self.bits) - 1

    @property
    def container(self) -> int:
        """The highest value that the file can hold."""
        return 255 if self.bits == 8 else 65535

    def file(self, surface: np.ndarray) -> bytes:
        """A surface, 0 to 1 (H, W), as this camera writes it."""
        values = np.rint(np.clip(surface, 0, 1) * self.top).astype(np.int64)
        if self.white_is_zero:
            values = self.top - values
        values.ravel()[: self.stuck] = self.container
        alpha = np.full_like(values, self.container)
        bands = {1: [values], 2: [values, alpha], 3: [values] * 3, 4: [values] * 3 + [alpha]}
        pixels = np.stack(bands[BANDS[self.arrangement]], axis=2)
        return {"png": self._png, "tiff": self._tiff, "pgm": self._pgm}[self.kind](pixels)

    def _png(self, pixels: np.ndarray) -> bytes:
        colour = {GREY: 0, GREY_ALPHA: 4, RGB: 2, RGBA: 6}[self.arrangement]
        return png_file(pixels, 8 if self.bits == 8 else 16, colour)

    def _tiff(self, pixels: np.ndarray) -> bytes:
        colour = self.arrangement in (RGB, RGBA)
        photometric = 2 if colour else 0 if self.white_is_zero else 1
        return tiff_file(pixels, 8 if self.bits == 8 else 16, photometric, big_endian=self.big_endian)

    def _pgm(self, pixels: np.ndarray) -> bytes:
        height, width, bands = pixels.shape
        sign = b"P5" if bands == 1 else b"P6"
        header = b"%s\n# a camera\n%d %d\n%d\n" % (sign, width, height, self.container)
        return header + pixels.astype(np.uint8 if self.bits == 8 else ">u2").tobytes()


def png_file(pixels: np.ndarray, bits: int, colour: int) -> bytes:
    """Integers (H, W, B) as PNG, each row filtered by another of the five filters that need no search."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = pixels.astype(np.uint8 if bits == 8 else ">u2")
    lines, before = [], None
    for row in range(height):
        line = np.frombuffer(rows[row].tobytes(), np.uint8)
        up = row % 2 == 1 and before is not None  # filter 2: the difference to the row above
        lines.append(
            (b"\2" + (line - before).tobytes()) if up and before is not None else b"\0" + line.tobytes()
        )
        before = line
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"".join(lines))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff_file(
    pixels: np.ndarray, bits: int, photometric: int, *, big_endian: bool = False, planar: Optional[int] = None
) -> bytes:
    """Integers (H, W, B) as TIFF of one strip."""
    order = ">" if big_endian else "<"
    height, width, bands = pixels.shape
    data = pixels.astype(np.dtype(np.uint8 if bits == 8 else np.uint16).newbyteorder(order)).tobytes()
    count = 9 + (bands == 4) + (planar is not None)
    end = 8 + 2 + 12 * count + 4
    sizes = struct.pack(order + "H" * bands, *([bits] * bands)) if bands > 2 else b""
    tags = [
        (256, width),
        (257, height),
        (258, end if bands > 2 else bits),
        (259, 1),
        (262, photometric),
        (273, end + len(sizes)),
        (277, bands),
        (278, height),
        (279, len(data)),
    ]
    tags += [] if planar is None else [(284, planar)]
    tags += [(338, 2)] if bands == 4 else []
    entries = b""
    for tag, value in sorted(tags):
        if tag in (273, 279):
            entries += struct.pack(order + "HHII", tag, 4, 1, value)
        elif tag == 258 and bands > 2:
            entries += struct.pack(order + "HHII", tag, 3, bands, value)
        else:
            entries += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    head = (b"MM" if big_endian else b"II") + struct.pack(order + "HIH", 42, 8, count)
    return head + entries + b"\0\0\0\0" + sizes + data
