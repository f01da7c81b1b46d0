"""Top-k sparsification: the largest values of each tensor and their positions.

Positions count through all tensors laid end to end. They are written in two ways and the shorter one
travels: a *bitmap* with one bit per value, or *gaps*, the number of values left out before each one kept
(one byte; 255 means "255 and the next byte too"). Huffman coding brings either near its entropy, so the
choice matters only at the ends. Kept values are quantised in blocks that never cross a tensor's border.
"""

from __future__ import annotations

import math
import struct
from typing import List, Sequence

import numpy as np

from fedspect.update.byte_reader import ByteReader, damaged, deflate
from fedspect.update.quantisation import flatten, quantise, restore, unflatten
from fedspect.update.schema import Arrays, TensorSpec

BLOCK = 256
AT_LEAST = 64
"""Small tensors keep at least this many values, whatever the density."""
BITMAP, GAPS = 0, 1
_COUNT = struct.Struct("<BI")
_ESCAPE = 255


def largest(values: np.ndarray, density: float) -> np.ndarray:
    """A mask of the values of one tensor to keep: the largest magnitudes, never zeros; ties go to the
    front.
    """
    magnitudes = np.abs(values)
    keep = min(values.size, max(math.ceil(density * values.size), AT_LEAST))
    if keep == values.size:
        return np.asarray(magnitudes > 0)
    threshold = np.partition(magnitudes, values.size - keep)[values.size - keep]
    mask = np.asarray(magnitudes > threshold)
    if threshold > 0:
        mask[np.flatnonzero(magnitudes == threshold)[: keep - int(np.count_nonzero(mask))]] = True
    return mask


def write_sparse(arrays: Arrays, specs: Sequence[TensorSpec], density: float) -> List[bytes]:
    """How positions are written and how many there are, the positions, block steps, and whole numbers."""
    values = flatten(arrays, specs)
    offsets = _offsets(specs)
    mask = np.zeros(values.size, bool)
    for begin, end in zip(offsets, offsets[1:]):
        mask[begin:end] = largest(values[begin:end], density)
    positions = np.flatnonzero(mask)
    steps, numbers = quantise(values[positions], block_starts(positions, offsets))
    bitmap, gaps = deflate(np.packbits(mask).tobytes()), deflate(gaps_of(positions).tobytes())
    form, packed = (GAPS, gaps) if len(gaps) < len(bitmap) else (BITMAP, bitmap)
    return [
        _COUNT.pack(form, len(positions)),
        packed,
        steps.astype("<f4").tobytes(),
        deflate(numbers.tobytes()),
    ]


def read_sparse(reader: ByteReader, specs: Sequence[TensorSpec]) -> Arrays:
    """What ``write_sparse`` wrote; what was left out is zero."""
    offsets = _offsets(specs)
    elements = int(offsets[-1])
    form, count = reader.unpack(_COUNT)
    if count > elements:
        raise damaged("it keeps more values than there are", seen=count, accepted=f"at most {elements}")
    if form == BITMAP:
        positions = _read_bitmap(reader, elements)
    elif form == GAPS:
        positions = _read_gaps(reader, count, elements)
    else:
        raise damaged("positions are written in an unknown way", seen=form, accepted="0 or 1")
    if len(positions) != count:
        raise damaged("it has another number of positions than it says", seen=len(positions), accepted=count)
    starts = block_starts(positions, offsets)
    steps = reader.array("<f4", len(starts))
    numbers = np.frombuffer(reader.stream(count, count), dtype=np.int8)
    values = np.zeros(elements, np.float32)
    values[positions] = restore(steps, numbers, starts)
    return unflatten(values, specs)


def gaps_of(positions: np.ndarray) -> np.ndarray:
    """The gap code (uint8) of increasing positions."""
    gaps = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(gaps // _ESCAPE + 1)
    code = np.full(int(ends[-1]) if len(ends) else 0, _ESCAPE, np.uint8)
    code[ends - 1] = gaps % _ESCAPE
    return code


def block_starts(positions: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Where each block begins among the values kept: every ``BLOCK`` of them, anew at each tensor."""
    borders = np.searchsorted(positions, offsets)
    starts = [np.arange(begin, end, BLOCK) for begin, end in zip(borders, borders[1:])]
    return np.concatenate(starts) if starts else np.zeros(0, np.int64)


def _offsets(specs: Sequence[TensorSpec]) -> np.ndarray:
    return np.cumsum([0] + [spec.elements for spec in specs])


def _read_bitmap(reader: ByteReader, elements: int) -> np.ndarray:
    size = (elements + 7) // 8
    bits = np.unpackbits(np.frombuffer(reader.stream(size, size), np.uint8))
    if bits[elements:].any():
        raise damaged("a bitmap marks values beyond the end")
    return np.flatnonzero(bits[:elements])


def _read_gaps(reader: ByteReader, count: int, elements: int) -> np.ndarray:
    code = np.frombuffer(reader.stream(count, count + elements // _ESCAPE), np.uint8)
    if len(code) and code[-1] == _ESCAPE:
        raise damaged("the last gap does not end")
    ends = np.flatnonzero(code != _ESCAPE)
    positions = np.cumsum(code, dtype=np.int64)[ends] + np.arange(len(ends))
    if len(positions) and positions[-1] >= elements:
        raise damaged("a gap leads beyond the end", seen=int(positions[-1]), accepted=f"below {elements}")
    return positions
