"""Engine interface: a function on a batch, with the facts of its input and output."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type

import numpy as np

from fedspect.errors import EngineError

PRECISIONS = ("float32", "float16")


@dataclass(frozen=True)
class TensorFacts:
    """A tensor at an engine's edge: name, numpy's name of its type, shape (``None``: any number)."""

    name: str
    dtype: str
    shape: Tuple[Optional[int], ...]

    def as_dict(self) -> Dict[str, Any]:
        """For a sidecar."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TensorFacts:
        """From a sidecar; raises ``KeyError``, ``TypeError`` or ``ValueError`` for another content."""
        shape: List[Optional[int]] = [None if size is None else int(size) for size in content["shape"]]
        return cls(str(content["name"]), np.dtype(str(content["dtype"])).name, tuple(shape))

    def check(self, batch: np.ndarray) -> None:
        """See that a batch fits; raises ``EngineError`` with what was seen and what is taken."""
        wanted = self.shape
        fits = len(wanted) == batch.ndim and all(
            size is None or size == seen for size, seen in zip(wanted, batch.shape)
        )
        if batch.dtype.name != self.dtype or not fits or batch.size == 0:
            shape = " x ".join("any" if size is None else str(size) for size in wanted)
            raise EngineError(
                "a batch does not fit the engine",
                seen=f"{batch.dtype.name} {' x '.join(map(str, batch.shape))}",
                accepted=f"{self.name}: {self.dtype} {shape}",
            )


class Engine(abc.ABC):
    """An open engine. ``run`` may be called from several threads at once."""

    kind: str
    """"onnxruntime", "tensorrt" or another package's (``kinds``)."""
    precision: str
    """"float32" or "float16": how it counts inside; its edges say their own type."""
    inputs: TensorFacts
    outputs: TensorFacts
    metadata: Mapping[str, str]
    """What the deploy graph says of itself: part, version, classes, normalisation, hashes."""
    memory_bytes: Optional[int] = None
    """What it holds on the device, where that can be told."""

    @abc.abstractmethod
    def run(self, batch: np.ndarray) -> np.ndarray:
        """Answer a batch: (N, ...) of the input's type -> (N, ...).

        Raises:
            EngineError: the batch does not fit, the engine is closed or the device failed.

        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give back what it holds; harmless when it is closed already."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()
