"""Tensor schema: which tensors travel, in which order and shape; and the content hash of a state.

Both sides work the schema out from what they already hold (base model, frozen levels, classes), so no
message has to be believed about a size. Everything that is read from a message is checked against the
receiver's own schema.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Callable, Dict, Iterator, Mapping, Sequence, Tuple

import numpy as np

from fedspect.errors import UpdateFormatError

MAX_TENSORS = 4096
MAX_NAME_LENGTH = 256
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**28
"""Of one schema: 268 million values, 1 GiB as float32; twice the largest classifier that torchvision has."""

STATISTICS_SUFFIXES = (".running_mean", ".running_var")

Arrays = Dict[str, np.ndarray]


def is_statistic(name: str) -> bool:
    """Whether a tensor is a running statistic of a batch norm (it is measured, not learned)."""
    return name.endswith(STATISTICS_SUFFIXES)


CONSTANT_PREFIX = "discriminant."


def is_constant(name: str) -> bool:
    """Whether a tensor of a head follows from sums (``fedspect.discriminant``) and no round may change it."""
    return name.startswith(CONSTANT_PREFIX)


@dataclass(frozen=True)
class TensorSpec:
    """The name and shape of one tensor; it travels as float32 or something coarser."""

    name: str
    shape: Tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= MAX_NAME_LENGTH:
            raise UpdateFormatError(
                "a tensor's name is too long or empty",
                seen=f"{len(self.name)} characters",
                accepted=f"1 to {MAX_NAME_LENGTH}",
            )
        if len(self.shape) > MAX_DIMENSIONS or any(length < 1 for length in self.shape):
            raise UpdateFormatError(
                f"the shape of tensor {self.name} cannot travel",
                seen=self.shape,
                accepted=f"at most {MAX_DIMENSIONS} dimensions, each at least 1",
            )

    @cached_property
    def elements(self) -> int:
        """How many values the tensor holds."""
        elements = 1
        for length in self.shape:
            elements *= length
        return elements

    @property
    def rows(self) -> int:
        """Output channels: the first dimension of a weight; 1 for a tensor without dimensions."""
        return self.shape[0] if self.shape else 1


@dataclass(frozen=True)
class Schema:
    """The tensors that travel, sorted by name.

    Raises:
        UpdateFormatError: unsorted or repeated names, or more tensors or values than any head may have.

    """

    specs: Tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.specs]
        if not 1 <= len(names) <= MAX_TENSORS:
            raise UpdateFormatError(
                "a schema has no tensors or too many", seen=len(names), accepted=f"1 to {MAX_TENSORS}"
            )
        if names != sorted(set(names)):
            raise UpdateFormatError("a schema's names are not sorted, or not unique", seen=names[:5])
        if self.elements > MAX_ELEMENTS:
            raise UpdateFormatError(
                "a schema holds too many values", seen=self.elements, accepted=f"at most {MAX_ELEMENTS}"
            )

    @classmethod
    def of(cls, state: Mapping[str, np.ndarray]) -> Schema:
        """The schema that a state (or a change of one) has."""
        return cls(tuple(TensorSpec(name, tuple(state[name].shape)) for name in sorted(state)))

    @cached_property
    def elements(self) -> int:
        """How many values all tensors hold together."""
        return sum(spec.elements for spec in self.specs)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (64 hexadecimal digits) over names and shapes."""
        canonical = json.dumps([[spec.name, list(spec.shape)] for spec in self.specs], separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()

    @property
    def names(self) -> Tuple[str, ...]:
        """The tensors' names, sorted."""
        return tuple(spec.name for spec in self.specs)

    @property
    def float32_bytes(self) -> int:
        """What the state weighs uncompressed: the yardstick of every encoding."""
        return 4 * self.elements

    def __iter__(self) -> Iterator[TensorSpec]:
        """The specs in the order in which they travel."""
        return iter(self.specs)

    def keeping(self, wanted: Callable[[str], bool]) -> Schema:
        """The schema of the tensors whose names are wanted (FedBN leaves the statistics at home)."""
        return Schema(tuple(spec for spec in self.specs if wanted(spec.name)))

    @property
    def changing(self) -> Schema:
        """The schema of changes: without the tensors that no round may change."""
        return self.keeping(lambda name: not is_constant(name))

    def check(self, state: Mapping[str, np.ndarray], what: str = "a state") -> None:
        """Raise ``UpdateFormatError`` unless the state has exactly these tensors in these shapes."""
        missing, extra = sorted(set(self.names) - set(state)), sorted(set(state) - set(self.names))
        if missing or extra:
            raise UpdateFormatError(
                f"{what} has other tensors than the head",
                seen=f"missing {_few(missing)}, unexpected {_few(extra)}",
                remedy="both sides must use the same base model, frozen levels and classes",
            )
        for spec in self.specs:
            if tuple(state[spec.name].shape) != spec.shape:
                raise UpdateFormatError(
                    f"{what} has tensor {spec.name} in another shape",
                    seen=tuple(state[spec.name].shape),
                    accepted=str(spec.shape),
                )


def _few(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def version_of(state: Mapping[str, np.ndarray]) -> str:
    """Name a state: SHA-256 (64 hexadecimal digits) over its schema and its float32 values, little-endian."""
    schema = Schema.of(state)
    digest = hashlib.sha256(schema.hash.encode("ascii"))
    for spec in schema:
        digest.update(np.asarray(state[spec.name], dtype="<f4", order="C").data)
    return digest.hexdigest()
