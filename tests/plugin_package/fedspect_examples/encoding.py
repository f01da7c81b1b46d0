"""One bit a value: its sign, and one size for the whole tensor (signSGD with a scale, Karimireddy et al., 2019)."""

from __future__ import annotations

import numpy as np

from fedspect.update.encoding import Encoding


def write(arrays, schema, density):
    """For each tensor its mean size (float32) and a bit for each value."""
    parts = []
    for spec in schema:
        values = arrays[spec.name].ravel()
        parts.append(np.abs(values).mean(keepdims=True).astype("<f4").tobytes())
        parts.append(np.packbits(values > 0).tobytes())
    return b"".join(parts)


def read(reader, schema):
    """The reader refuses what is too short; the product refuses what is too long or of another shape."""
    arrays = {}
    for spec in schema:
        size = reader.array("<f4", 1)
        bits = np.unpackbits(reader.array("u1", -(-spec.elements // 8)), count=spec.elements)
        arrays[spec.name] = (size * (2.0 * bits - 1.0)).astype(np.float32).reshape(spec.shape)
    return arrays


SIGN = Encoding(number=200, write=write, read=read)
"""The entry point. The number stands in every message: 128 to 255, and never another one again."""
