"""Byte reader and writer for messages from outside: every length is checked against what is there.

Every read says how much it expects; whatever is longer, shorter or does not decompress to exactly the size
that the receiver worked out is an ``UpdateFormatError``. Nothing is allocated before its size was checked.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Tuple

import numpy as np

from fedspect.errors import UpdateFormatError

LENGTH = struct.Struct("<I")
STORED, DEFLATED = 0, 1


def damaged(what: str, *, seen: object = None, accepted: object = None) -> UpdateFormatError:
    """The error for bytes that cannot be what they claim to be."""
    return UpdateFormatError(
        f"a message is damaged: {what}",
        seen=seen,
        accepted=None if accepted is None else str(accepted),
        remedy="send it again; if it recurs, check that both sides run the same version of Fedspect",
    )


class ByteReader:
    """Walks through bytes once, from front to back."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._place = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._place

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        if count < 0 or count > self.left:
            raise damaged("it ends too early", seen=f"{self.left} bytes left", accepted=f"{count} bytes")
        taken = self._data[self._place : self._place + count]
        self._place += count
        return taken

    def unpack(self, form: struct.Struct) -> Tuple[Any, ...]:
        """The next values of a fixed form."""
        return form.unpack(self.take(form.size))

    def array(self, dtype: str, count: int) -> np.ndarray:
        """The next ``count`` numbers, as a read-only view of the message."""
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype=dtype)

    def stream(self, least: int, most: int) -> bytes:
        """A byte stream that ``deflate`` wrote and that holds from ``least`` to ``most`` bytes."""
        method, length = self.unpack(_STREAM)
        packed = self.take(length)
        if method == STORED:
            content = bytes(packed) if length <= most else b""
        elif method == DEFLATED:
            inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
            try:
                content = inflater.decompress(packed, most + 1)
            except zlib.error as error:
                raise damaged("a stream does not decompress", seen=error) from None
            if len(content) <= most and (not inflater.eof or inflater.unused_data):
                raise damaged("a stream does not end where it says")
        else:
            raise damaged("a stream is packed in an unknown way", seen=method, accepted="0 or 1")
        if not least <= len(content) <= most:
            raise damaged("a stream has another size", accepted=f"{least} to {most} bytes")
        return content

    def end(self) -> None:
        """Raise unless everything was read."""
        if self.left:
            raise damaged("bytes follow its end", seen=f"{self.left} bytes")


_STREAM = struct.Struct("<BI")


def deflate(content: bytes) -> bytes:
    """A stream for ``ByteReader.stream``: Huffman-coded where that is smaller, as it is otherwise.

    The streams hold quantised noise, in which repeated strings do not occur: Huffman coding alone finds
    what there is to find and takes a third of the time.
    """
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    packed = deflater.compress(content) + deflater.flush()
    if len(packed) < len(content):
        return _STREAM.pack(DEFLATED, len(packed)) + packed
    return _STREAM.pack(STORED, len(content)) + content
