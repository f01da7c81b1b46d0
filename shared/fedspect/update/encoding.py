"""Update encoding: a change of the head, whole or lossy, with a header that both sides check.

A message is a header of 52 bytes and a body. The header names the format's version, the encoding, the
schema's hash and the body's length, and holds a checksum of all of it; the body's layout follows from
encoding and schema (``docs/update-format.md``). Tensors of one dimension (biases, norm weights, running
statistics) always travel whole as float16 or float32; the encodings differ in what they do with the
others:

===============  =========================================================================================
``float32``      as they are
``float16``      half precision beside a scale per tensor
``int8``         eight bits per value, a scale per output channel
``int3``         the same with seven values instead of 255, Huffman-coded to two or three bits
``sparse-int8``  the largest values of each tensor in eight bits and where they stand; the rest is left
                 out and, with ``feedback``, sent later
===============  =========================================================================================

A package adds an encoding by an entry point of the group ``fedspect.encodings``: an ``Encoding`` with a number from 128
to 255, which both sides must have installed (``docs/extend/encoding.md``).
"""

from __future__ import annotations

import struct
import zlib
from typing import Callable, Dict, List, Mapping, NamedTuple, Tuple

import numpy as np
from typing_extensions import Annotated

from fedspect import plugins
from fedspect.errors import FedspectError, SettingsError, UpdateFormatError, UpdateRefusedError, did_you_mean
from fedspect.update.byte_reader import ByteReader, damaged
from fedspect.update.dense import read_float16, read_float32, write_float16, write_float32
from fedspect.update.quantisation import INT3, INT8, read_channels, write_channels
from fedspect.update.schema import Arrays, Schema, TensorSpec
from fedspect.update.sparse import read_sparse, write_sparse

MAGIC = b"FSPU"
FORMAT_VERSION = 1
HEADER = struct.Struct("<4sBBH32sQ")
CHECKSUM = struct.Struct("<I")
GROUP = "fedspect.encodings"
ENCODINGS: Tuple[str, ...] = ("float32", "float16", "int8", "sparse-int8", "int3")
"""Fedspect's own; the place is the number on the wire."""
NAMES = plugins.NameIn(GROUP, ENCODINGS)
EncodingName = Annotated[str, NAMES]
FOREIGN = 128  # the lowest number of another package's encoding
LOSSLESS = "float32"
DEFAULT_ENCODING = "int3"
DEFAULT_DENSITY = 0.25
"""The share of each tensor's values that ``sparse-int8`` keeps."""


class Encoding(NamedTuple):
    """How a change becomes the body of a message, and back."""

    number: int
    """On the wire; 128 to 255 for those of other packages."""
    write: Callable[[Arrays, Schema, float], bytes]
    """float32 arrays of the schema, and the density that was set, to bytes."""
    read: Callable[[ByteReader, Schema], Arrays]
    """Bytes that nobody has checked, to float32 arrays of the schema; must read all of them."""


def encode(
    change: Mapping[str, np.ndarray], *, encoding: str = DEFAULT_ENCODING, density: float = DEFAULT_DENSITY
) -> bytes:
    """The message for a change (or, as float32, for a whole head).

    Args:
        change: float arrays of any shape, by name.
        encoding: one of ``ENCODINGS``, or of another package.
        density: the share of values that ``sparse-int8`` keeps, above 0 and at most 1; others ignore it.

    Raises:
        SettingsError: an unknown encoding or an impossible density.
        UpdateRefusedError: a value is not finite: such a change must not even leave the plant.
        UpdateFormatError: more or larger tensors than the format holds.

    """
    check_encoding(encoding, density)
    schema = Schema.of(change)
    arrays = {name: np.asarray(change[name], dtype=np.float32, order="C") for name in schema.names}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise UpdateRefusedError(
                f"tensor {name} of an update holds values that are not finite",
                remedy="lower the learning rate; training diverged",
            )
    return seal(encoding, schema, _encoding(encoding).write(arrays, schema, density))


def decode(blob: bytes, schema: Schema) -> Arrays:
    """The change that a message holds, as new float32 arrays in the schema's shapes.

    Values may be infinite or NaN if the sender forged them; ``checks`` refuses those.

    Raises:
        UpdateFormatError: the bytes are not a whole message of this format for this schema.

    """
    encoding, body = unseal(blob, schema)
    reader = ByteReader(body)
    try:
        arrays = _encoding(encoding).read(reader, schema)
    except FedspectError:
        raise
    except Exception as error:  # a foreign encoding may fail in any way
        raise damaged(f"{encoding} cannot read it", seen=f"{type(error).__name__}: {error}") from error
    reader.end()
    for spec in schema:
        values = arrays.get(spec.name)
        if values is None or values.dtype != np.float32 or values.shape != spec.shape:
            raise damaged(f"{encoding} reads something else than {spec.name}")
    return arrays


def encoding_of(blob: bytes) -> str:
    """The encoding that a message names (nothing else of it is checked).

    Raises:
        UpdateFormatError: no message of this format, or an encoding that this version does not know.

    """
    if len(blob) < HEADER.size + CHECKSUM.size or bytes(blob[:4]) != MAGIC:
        raise damaged("it is not an update", seen=f"{len(blob)} bytes starting {bytes(blob[:4])!r}")
    _, version, number, _, _, _ = HEADER.unpack_from(blob)
    if version != FORMAT_VERSION:
        raise UpdateFormatError(
            "an update has another format version",
            seen=version,
            accepted=str(FORMAT_VERSION),
            remedy="bring both sides to the same version of Fedspect",
        )
    if number < len(ENCODINGS):
        return ENCODINGS[int(number)]
    found = [name for name in plugins.load(GROUP) if number >= FOREIGN and _encoding(name).number == number]
    if not found:
        raise UpdateFormatError(
            "an update has an unknown encoding",
            seen=number,
            accepted=", ".join(NAMES.names()),
            remedy="both sides need the same packages; see docs/extend/encoding.md",
        )
    return found[0]


def check_encoding(encoding: str, density: float = DEFAULT_DENSITY) -> None:
    """Raise ``SettingsError`` for an unknown encoding or an impossible density."""
    if encoding not in ENCODINGS and encoding not in (names := NAMES.names()):
        raise SettingsError(
            "an update's encoding is unknown",
            seen=encoding,
            accepted=", ".join(names),
            remedy=did_you_mean(encoding, names),
        )
    if not 0.0 < density <= 1.0:
        raise SettingsError("an update's density is impossible", seen=density, accepted="above 0, at most 1")


def largest_message(schema: Schema) -> int:
    """No encoding makes a message longer than this many bytes: the receiver's limit."""
    return HEADER.size + CHECKSUM.size + 8 * len(schema.specs) + 5 * schema.elements + 1024


def seal(encoding: str, schema: Schema, body: bytes) -> bytes:
    """Put the header and its checksum before a body."""
    header = HEADER.pack(
        MAGIC, FORMAT_VERSION, _encoding(encoding).number, 0, bytes.fromhex(schema.hash), len(body)
    )
    return header + CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header))) + body


def unseal(blob: bytes, schema: Schema) -> Tuple[str, memoryview]:
    """Check a message's header and checksum; return its encoding and body."""
    encoding = encoding_of(blob)
    view = memoryview(blob)
    _, _, _, reserved, schema_hash, length = HEADER.unpack_from(view)
    start = HEADER.size + CHECKSUM.size
    if length != len(view) - start:
        raise damaged("its length is another", seen=f"{len(view) - start} bytes", accepted=f"{length} bytes")
    (checksum,) = CHECKSUM.unpack_from(view, HEADER.size)
    if reserved or checksum != zlib.crc32(view[start:], zlib.crc32(view[: HEADER.size])):
        raise damaged("its checksum is another")
    if schema_hash.hex() != schema.hash:
        raise UpdateFormatError(
            "an update was made for another head",
            seen=f"schema {schema_hash.hex()[:12]}",
            accepted=f"schema {schema.hash[:12]}",
            remedy="both sides must use the same base model, frozen levels, classes and batch-norm rule",
        )
    return encoding, view[start:]


def _whole_and_wide(schema: Schema) -> Tuple[List[TensorSpec], List[TensorSpec]]:
    """The tensors that always travel whole (one dimension or none), and the others."""
    return [spec for spec in schema if len(spec.shape) < 2], [spec for spec in schema if len(spec.shape) > 1]


def _encoding(name: str) -> Encoding:
    """An encoding by name.

    Raises:
        SettingsError: another package's cannot be loaded, or is none.

    """
    if name in _OWN:
        return _OWN[name]
    found = plugins.resolve(GROUP, name)
    if not isinstance(found, Encoding) or not FOREIGN <= found.number <= 255:
        raise SettingsError(
            f"the encoding {name} cannot be used",
            seen=repr(found)[:100],
            accepted=f"a fedspect.update.encoding.Encoding with a number from {FOREIGN} to 255",
            remedy="mend or uninstall the package that registers it",
        )
    return found


def _in_part(
    write_wide: Callable[[Arrays, List[TensorSpec], float], List[bytes]],
    read_wide: Callable[[ByteReader, List[TensorSpec]], Arrays],
) -> Tuple[Callable[[Arrays, Schema, float], bytes], Callable[[ByteReader, Schema], Arrays]]:
    """Writing and reading where tensors of one dimension travel as float16, and only the others differ."""

    def write(arrays: Arrays, schema: Schema, density: float) -> bytes:
        whole, wide = _whole_and_wide(schema)
        return b"".join(write_float16(arrays, whole) + write_wide(arrays, wide, density))

    def read(reader: ByteReader, schema: Schema) -> Arrays:
        whole, wide = _whole_and_wide(schema)
        arrays = read_float16(reader, whole)
        arrays.update(read_wide(reader, wide))
        return {spec.name: arrays[spec.name] for spec in schema}

    return write, read


def _in_channels(levels: int) -> Tuple[Callable[..., bytes], Callable[..., Arrays]]:
    return _in_part(
        lambda arrays, wide, density: write_channels(arrays, wide, levels),
        lambda reader, wide: read_channels(reader, wide, levels),
    )


_OWN: Dict[str, Encoding] = {
    "float32": Encoding(
        0,
        lambda arrays, schema, density: b"".join(write_float32(arrays, schema.specs)),
        lambda reader, schema: read_float32(reader, schema.specs),
    ),
    "float16": Encoding(
        1,
        lambda arrays, schema, density: b"".join(write_float16(arrays, schema.specs)),
        lambda reader, schema: read_float16(reader, schema.specs),
    ),
    "int8": Encoding(2, *_in_channels(INT8)),
    "sparse-int8": Encoding(3, *_in_part(write_sparse, read_sparse)),
    "int3": Encoding(4, *_in_channels(INT3)),
}
