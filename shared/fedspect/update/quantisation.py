"""Symmetric per-channel quantisation, 8-bit or 7-level: every run of values shares one step.

``int8`` and ``int3`` take an output channel as a run; ``sparse`` takes blocks of what it kept. A value comes
back within half a step. Steps travel as float32, so both sides multiply the same numbers and hold the same
head to the last bit.
"""

from __future__ import annotations

from typing import List, Sequence, Tuple

import numpy as np

from fedspect.update.byte_reader import ByteReader, damaged, deflate
from fedspect.update.schema import Arrays, TensorSpec

INT8, INT3 = 127, 3
"""The largest whole number. Either travels as bytes: Huffman coding brings seven values to two or three
bits each.
"""


def quantise(values: np.ndarray, starts: np.ndarray, levels: int = INT8) -> Tuple[np.ndarray, np.ndarray]:
    """Steps (float32, one per run) and whole numbers (int8, one per value).

    Args:
        values: float32, one dimension.
        starts: where each run begins, strictly increasing from 0.
        levels: the largest whole number, ``INT8`` or ``INT3``.

    """
    if not values.size:
        return np.zeros(0, np.float32), np.zeros(0, np.int8)
    steps = np.maximum.reduceat(np.abs(values), starts) / np.float32(levels)
    divisors = np.where(steps > 0, steps, np.float32(1.0)).astype(np.float32)
    scaled = np.divide(values, np.repeat(divisors, lengths_of(starts, values.size)))
    np.clip(np.rint(scaled, out=scaled), -levels, levels, out=scaled)
    return steps.astype(np.float32), scaled.astype(np.int8)


def restore(steps: np.ndarray, numbers: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The float32 values that ``quantise`` kept."""
    with np.errstate(all="ignore"):  # a forged step may overflow; the checks refuse what is not finite
        restored: np.ndarray = numbers.astype(np.float32)
        restored *= np.repeat(steps.astype(np.float32), lengths_of(starts, numbers.size))
        return restored


def lengths_of(starts: np.ndarray, size: int) -> np.ndarray:
    """How long each run is."""
    return np.diff(np.append(starts, size))


def channel_starts(specs: Sequence[TensorSpec]) -> np.ndarray:
    """Where each output channel begins when all tensors are laid end to end."""
    starts, offset = [np.zeros(0, np.int64)], 0
    for spec in specs:
        starts.append(offset + np.arange(spec.rows, dtype=np.int64) * (spec.elements // spec.rows))
        offset += spec.elements
    return np.concatenate(starts)


def flatten(arrays: Arrays, specs: Sequence[TensorSpec]) -> np.ndarray:
    """All tensors laid end to end."""
    if not specs:
        return np.zeros(0, np.float32)
    return np.concatenate([arrays[spec.name].ravel() for spec in specs])


def unflatten(values: np.ndarray, specs: Sequence[TensorSpec]) -> Arrays:
    """The tensors that ``flatten`` laid end to end, as views of ``values``."""
    arrays, offset = {}, 0
    for spec in specs:
        arrays[spec.name] = values[offset : offset + spec.elements].reshape(spec.shape)
        offset += spec.elements
    return arrays


def write_channels(arrays: Arrays, specs: Sequence[TensorSpec], levels: int) -> List[bytes]:
    """All steps (float32, one per output channel), then all whole numbers (int8) as one packed stream."""
    steps, numbers = quantise(flatten(arrays, specs), channel_starts(specs), levels)
    return [steps.astype("<f4").tobytes(), deflate(numbers.tobytes())]


def read_channels(reader: ByteReader, specs: Sequence[TensorSpec], levels: int) -> Arrays:
    """What ``write_channels`` wrote."""
    starts, elements = channel_starts(specs), sum(spec.elements for spec in specs)
    steps = reader.array("<f4", len(starts))
    numbers = np.frombuffer(reader.stream(elements, elements), dtype=np.int8)
    if elements and int(np.max(np.abs(numbers.astype(np.int16)))) > levels:
        raise damaged("a whole number is too large for its encoding", accepted=f"at most {levels}")
    return unflatten(restore(steps, numbers, starts), specs)
