"""Dense tensor encodings: float32 as it is, or float16 beside one scale per tensor.

The scale is a power of two, so dividing by it loses nothing and float16 sees values between -1 and 1:
neither a large statistic overflows nor a tiny step vanishes. Error per value: at most 2**-12 of it, or
2**-25 of the scale if larger.
"""

from __future__ import annotations

from typing import List, Sequence

import numpy as np

from fedspect.update.byte_reader import ByteReader
from fedspect.update.schema import Arrays, TensorSpec


def power_of_two_above(values: np.ndarray) -> np.float32:
    """The smallest power of two that is at least every magnitude; 1 where all are zero; 2**127 at most."""
    largest = float(np.max(np.abs(values))) if values.size else 0.0
    if largest == 0.0:
        return np.float32(1.0)
    mantissa, exponent = np.frexp(largest)
    exponent = int(exponent) - (1 if mantissa == 0.5 else 0)
    return np.float32(np.ldexp(1.0, min(max(exponent, -126), 127)))


def write_float32(arrays: Arrays, specs: Sequence[TensorSpec]) -> List[bytes]:
    """Each tensor's values, little-endian."""
    return [arrays[spec.name].astype("<f4", copy=False).tobytes() for spec in specs]


def read_float32(reader: ByteReader, specs: Sequence[TensorSpec]) -> Arrays:
    """What ``write_float32`` wrote."""
    return {
        spec.name: reader.array("<f4", spec.elements).astype(np.float32).reshape(spec.shape) for spec in specs
    }


def write_float16(arrays: Arrays, specs: Sequence[TensorSpec]) -> List[bytes]:
    """All scales (float32), then each tensor's values divided by its scale (float16)."""
    scales = np.array([power_of_two_above(arrays[spec.name]) for spec in specs], dtype="<f4")
    parts = [scales.tobytes()]
    for spec, scale in zip(specs, scales):
        parts.append((arrays[spec.name] / scale).astype("<f2").tobytes())
    return parts


def read_float16(reader: ByteReader, specs: Sequence[TensorSpec]) -> Arrays:
    """What ``write_float16`` wrote."""
    scales = reader.array("<f4", len(specs)).astype(np.float32)
    arrays: Arrays = {}
    for spec, scale in zip(specs, scales):
        values = reader.array("<f2", spec.elements).astype(np.float32)
        with np.errstate(all="ignore"):  # a forged scale may overflow; the checks refuse what is not finite
            arrays[spec.name] = (values * scale).reshape(spec.shape)
    return arrays
