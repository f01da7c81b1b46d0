"""Segment: one immutable file of features, the unit in which the cache grows and shrinks.

::

    magic                 8 bytes   b"FEDFEAT1"
    length of the header  4 bytes   little endian
    header                JSON: key, shape of a row, entries (picture digest and view token of each row),
    CRC-32 of the rows SHA-256 of the above  32 bytes padding               zeros up to a multiple of 4096
    rows                  float16, C order, to the end of the file

A segment is written under a temporary name, flushed and renamed, so under its own name it is complete. What
a failing disk makes of it later shows in its size, the header's hash or the rows' checksum, and the segment
is dropped: its features can be computed again.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np

from fedspect.errors import DamagedFileError
from fedspect.files import replacing

Entry = Tuple[str, str]
"""Picture digest and view token: what a row holds the features of."""

MAGIC = b"FEDFEAT1"
SUFFIX = ".features"
ALIGNMENT = 4096
LONGEST_HEADER = 64 << 20
ROW_TYPE = np.dtype("<f2")


@dataclass(frozen=True)
class Segment:
    """A segment's header, checked; the rows are mapped by ``rows``."""

    path: Path
    key: str
    shape: Tuple[int, ...]
    entries: Tuple[Entry, ...]
    offset: int
    checksum: int
    size: int

    def rows(self, *, check: bool) -> np.ndarray:
        """Map the rows: read-only float16 (entries, *shape).

        Raises:
            DamagedFileError: ``check`` is set and the rows are not those that were written.
            OSError: the file has gone.

        """
        mapped = np.memmap(
            self.path, dtype=ROW_TYPE, mode="r", offset=self.offset, shape=(len(self.entries), *self.shape)
        )
        if check and zlib.crc32(_bytes(mapped)) != self.checksum:
            raise DamagedFileError("a cache segment's rows have changed", seen=self.path)
        return mapped


def write_segment(path: Path, key: str, entries: Sequence[Entry], rows: np.ndarray) -> Segment:
    """Write rows, float16 (entries, *shape), whole or not at all.

    Raises:
        DiskFullError, ReadOnlyError, StorageError: nothing was written.

    """
    content = np.ascontiguousarray(rows, dtype=ROW_TYPE)
    checksum = zlib.crc32(_bytes(content))
    header = {
        "key": key,
        "shape": list(content.shape[1:]),
        "entries": [list(entry) for entry in entries],
        "crc32": checksum,
    }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    start = MAGIC + struct.pack("<I", len(encoded)) + encoded
    start += hashlib.sha256(start).digest()
    offset = -(-len(start) // ALIGNMENT) * ALIGNMENT
    with replacing(path) as file:
        file.write(start.ljust(offset, b"\0"))
        file.write(_bytes(content))
    return Segment(
        path, key, tuple(content.shape[1:]), tuple(entries), offset, checksum, offset + content.nbytes
    )


def read_segment(path: Path) -> Segment:
    """Read and check a segment's header; the rows stay on disk.

    Raises:
        DamagedFileError: it is not a complete segment.
        OSError: it cannot be read, or another process has evicted it.

    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(MAGIC) + 4)
        if len(start) < len(MAGIC) + 4 or not start.startswith(MAGIC):
            raise DamagedFileError("not a cache segment", seen=path)
        (length,) = struct.unpack("<I", start[len(MAGIC) :])
        if length > min(size, LONGEST_HEADER):
            raise DamagedFileError("a cache segment's header is too long", seen=path)
        start += file.read(length)
        if file.read(32) != hashlib.sha256(start).digest():
            raise DamagedFileError("a cache segment's header has changed", seen=path)
    header = json.loads(start[len(MAGIC) + 4 :])
    shape = tuple(int(side) for side in header["shape"])
    entries: List[Entry] = [(str(digest), str(token)) for digest, token in header["entries"]]
    offset = -(-(len(start) + 32) // ALIGNMENT) * ALIGNMENT
    expected = offset + len(entries) * int(np.prod(shape, dtype=np.int64)) * ROW_TYPE.itemsize
    if size != expected:
        raise DamagedFileError("a cache segment is not complete", seen=f"{path}: {size} of {expected} bytes")
    return Segment(path, str(header["key"]), shape, tuple(entries), offset, int(header["crc32"]), size)


def _bytes(rows: np.ndarray) -> memoryview:
    """The same memory as bytes, without a copy."""
    return rows.reshape(-1).view(np.uint8).data
