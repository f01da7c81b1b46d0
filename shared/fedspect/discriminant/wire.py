"""The bytes of class statistics: versioned, bounded, the symmetric second moment as its packed lower triangle.

Magic (4 bytes), format version (u8), bytes of a value (u8), classes (u32), features (u32), CRC-32 of the rest (u32);
then counts (u64 each), sums and triangle as signed little-endian integers of the smallest width that holds all of
them. With 832 features and some thousand pictures that is 5 bytes a value: 1.75 MB.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from fedspect.discriminant.statistics import ClassStatistics
from fedspect.errors import UpdateFormatError
from fedspect.update.byte_reader import damaged

MAGIC = b"FSPS"
FORMAT_VERSION = 1
HEADER = struct.Struct("<4sBBIII")
MOST_FEATURES = 4096
MOST_CLASSES = 1000
WIDEST = 8


def to_bytes(statistics: ClassStatistics) -> bytes:
    """The message for these sums."""
    classes, features = statistics.shape
    values = np.concatenate([statistics.sums.ravel(), _triangle(statistics.moment)])
    width = _width(values)
    counts = np.ascontiguousarray(statistics.counts, dtype="<u8").tobytes()
    body = (
        counts + np.ascontiguousarray(values, dtype="<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
    )
    return HEADER.pack(MAGIC, FORMAT_VERSION, width, classes, features, zlib.crc32(body)) + body


def from_bytes(blob: bytes, classes: int, features: int) -> ClassStatistics:
    """The sums that a message holds; classes and features are the receiver's own.

    Raises:
        UpdateFormatError: the bytes are no whole message, or of other classes or features.

    """
    if len(blob) < HEADER.size or blob[:4] != MAGIC:
        raise damaged("it holds no class statistics", seen=f"{len(blob)} bytes")
    _, version, width, said_classes, said_features, checksum = HEADER.unpack_from(blob)
    if version != FORMAT_VERSION:
        raise UpdateFormatError(
            "class statistics have another format version",
            seen=version,
            accepted=str(FORMAT_VERSION),
            remedy="bring both sides to the same version of Fedspect",
        )
    if (said_classes, said_features) != (classes, features):
        raise UpdateFormatError(
            "class statistics are of other classes or features",
            seen=f"{said_classes} classes, {said_features} features",
            accepted=f"{classes} and {features}",
            remedy="both sides must use the same base model, frozen levels and classes",
        )
    values = classes * features + features * (features + 1) // 2
    if not 1 <= width <= WIDEST or len(blob) != HEADER.size + 8 * classes + width * values:
        raise damaged(
            "its length is not that of class statistics", seen=f"{len(blob)} bytes of width {width}"
        )
    if zlib.crc32(memoryview(blob)[HEADER.size :]) != checksum:
        raise damaged("its checksum is another")
    counts = np.frombuffer(blob, dtype="<u8", count=classes, offset=HEADER.size)
    packed = np.frombuffer(blob, dtype=np.uint8, offset=HEADER.size + 8 * classes).reshape(values, width)
    wide = np.empty((values, WIDEST), dtype=np.uint8)
    wide[:, :width] = packed
    wide[:, width:] = (np.where(packed[:, -1] >= 128, 255, 0).astype(np.uint8))[:, None]
    numbers = wide.view("<i8").ravel().astype(np.int64)
    if int(counts.max(initial=0)) > 2**53:
        raise damaged("a class has an impossible number of pictures", seen=int(counts.max()))
    moment = np.zeros((features, features), dtype=np.int64)
    rows, columns = np.tril_indices(features)
    moment[rows, columns] = numbers[classes * features :]
    moment[columns, rows] = numbers[classes * features :]
    return ClassStatistics(
        counts.astype(np.int64), numbers[: classes * features].reshape(classes, features), moment
    )


def largest(classes: int, features: int) -> int:
    """No message of so many classes and features is longer, in bytes."""
    return HEADER.size + 8 * classes + WIDEST * (classes * features + features * (features + 1) // 2)


def _triangle(moment: np.ndarray) -> np.ndarray:
    rows, columns = np.tril_indices(len(moment))
    return np.asarray(moment[rows, columns])


def _width(values: np.ndarray) -> int:
    """The bytes that a signed integer needs so that it holds every value."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    return max((max(high.bit_length(), (~low).bit_length() if low < 0 else 0) + 8) // 8, 1)
