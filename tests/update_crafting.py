"""Heads to encode, and messages as a broken or hostile sender would make them (checksums right, content
wrong).
"""

from __future__ import annotations

import struct
import zlib
from typing import Dict, Tuple

import numpy as np
from hypothesis import strategies as st

from fedspect.update.encoding import CHECKSUM, ENCODINGS, HEADER, seal
from fedspect.update.schema import Schema

SHAPES: Dict[str, Tuple[int, ...]] = {
    "block.conv.weight": (16, 4, 3, 3),
    "block.norm.bias": (16,),
    "block.norm.running_mean": (16,),
    "block.norm.running_var": (16,),
    "block.norm.weight": (16,),
    "classifier.bias": (3,),
    "classifier.weight": (3, 128),
    "scale": (),
}


def change(
    seed: int = 0, size: float = 1e-2, shapes: Dict[str, Tuple[int, ...]] = SHAPES
) -> Dict[str, np.ndarray]:
    """A change as training makes it: heavy-tailed, each tensor at its own scale."""
    random = np.random.default_rng(seed)
    scales = 10.0 ** random.uniform(-2, 1, size=len(shapes))
    return {
        name: np.asarray(random.standard_t(4, size=shape) * size * scale, dtype=np.float32)
        for (name, shape), scale in zip(shapes.items(), scales)
    }


def head(seed: int = 0) -> Dict[str, np.ndarray]:
    """A head to change: variances above zero."""
    state = change(seed, size=1.0)
    return {name: np.abs(values) + 0.1 if name.endswith("var") else values for name, values in state.items()}


def resealed(blob: bytes) -> bytes:
    """The message with length and checksum made right again: what follows them must hold."""
    header, body = blob[: HEADER.size], blob[HEADER.size + CHECKSUM.size :]
    header = header[:40] + struct.pack("<Q", len(body))
    return header + CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header))) + body


def with_value(schema: Schema, value: float) -> bytes:
    """A well-formed float32 message of zeros with one value that no honest plant sends."""
    values = np.zeros(schema.elements, dtype="<f4")
    values[schema.elements // 2] = value
    return seal("float32", schema, values.tobytes())


@st.composite
def changes(draw: st.DrawFn) -> Dict[str, np.ndarray]:
    """Small changes of any shapes and magnitudes, zeros and ties among them."""
    state = {}
    for number in range(draw(st.integers(1, 4))):
        shape = tuple(draw(st.lists(st.integers(1, 7), max_size=4)))
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        magnitude = 10.0 ** draw(st.integers(-30, 20))
        values = random.standard_normal(shape) * magnitude
        if draw(st.booleans()):
            values = np.round(values / magnitude) * magnitude
        state[f"tensor{number}"] = np.asarray(values, dtype=np.float32)
    return state


encodings = st.sampled_from(ENCODINGS)
densities = st.floats(0.01, 1.0)
