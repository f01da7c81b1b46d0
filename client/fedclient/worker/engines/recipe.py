"""Build recipe of an engine kind: what its cache key depends on, and making the file.

``order`` -> ``recipe_of(order)`` -> ``key(source)`` and ``build(source, file, tell)``. Runs in the builder's
process only, so it may import onnx and the runtimes.
"""

from __future__ import annotations

import abc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np
import onnx
from onnx import helper

from fedclient.worker.engines.interface import PRECISIONS, Engine, TensorFacts
from fedclient.worker.engines.kinds import engine_kind
from fedclient.worker.engines.stored import EngineKey
from fedclient.worker.onnx_metadata import OnnxFile
from fedspect.errors import EngineError

Tell = Callable[[str, Optional[float]], None]
"""Told a phase, and which share of it is done where that is known."""


@dataclass(frozen=True)
class BuildOrder:
    """What to build: an ONNX file, for which runtime, counting how, up to which batch."""

    onnx_path: Path
    kind: str = "onnxruntime"
    precision: str = "float32"
    max_batch: int = 8
    timing: Optional[Path] = None
    """The folder of the timing caches; none: without one."""
    tensorrt_module: Optional[str] = None
    """The name of TensorRT's Python module, where it is not the usual one."""

    def check(self) -> None:
        """Raise ``EngineError`` for what no engine can be."""
        if self.precision not in PRECISIONS:
            raise EngineError("no such precision", seen=self.precision, accepted=", ".join(PRECISIONS))
        if not 1 <= self.max_batch <= 256:
            raise EngineError("no engine for such batches", seen=self.max_batch, accepted="1 to 256")


class Recipe(abc.ABC):
    """How one kind of engine is built."""

    order: BuildOrder

    @abc.abstractmethod
    def key(self, source: OnnxFile) -> EngineKey:
        """What the engine would be kept under; raises ``EngineError`` where this kind cannot be built."""

    @abc.abstractmethod
    def build(self, source: OnnxFile, file: Path, tell: Tell) -> Dict[str, Any]:
        """Write the engine's file and answer what the sidecar should say beside the usual facts.

        Raises:
            EngineError: it cannot be built, or it does not answer as it must.

        """


def recipe_of(order: BuildOrder) -> Recipe:
    """The recipe of the ordered kind."""
    order.check()
    return engine_kind(order.kind).recipe(order)


def edges_of(model: onnx.ModelProto) -> Tuple[TensorFacts, TensorFacts]:
    """A model's only input and output."""
    return _edge(model.graph.input[0]), _edge(model.graph.output[0])


def shapes_of(facts: TensorFacts, batch: str) -> str:
    """A shape for a key: ``batch`` for what is free, such as "1-8x1x224x224"."""
    return "x".join(batch if size is None else str(size) for size in facts.shape)


def sample_of(source: OnnxFile, count: int) -> np.ndarray:
    """A batch of random numbers such as the model takes; the same ones each time."""
    facts, _ = edges_of(source.model)
    shape = [count if size is None else size for size in facts.shape]
    numbers = np.random.default_rng(0)
    if facts.dtype == "uint8" or (source.metadata.get("pixels") == "float32" and facts.name == "pixels"):
        return numbers.integers(0, 256, shape).astype(facts.dtype)
    return numbers.standard_normal(shape).astype(facts.dtype)


def check_answers(engine: Engine, batch: np.ndarray) -> np.ndarray:
    """Let an engine answer and see that the answer has the shape it declares and nothing but numbers."""
    answer = engine.run(batch)
    engine.outputs.check(answer)
    if len(answer) != len(batch) or not np.isfinite(answer).all():
        raise EngineError(
            "an engine does not answer as it declares",
            seen=f"{answer.shape} for {batch.shape}, {np.isfinite(answer).mean():.0%} of it finite",
            accepted="an answer for each of the batch, all finite",
            remedy="keep the current engine; the version's weights may be damaged",
        )
    return answer


def common_facts(source: OnnxFile) -> Dict[str, Any]:
    """What every sidecar says of the graph that an engine was built from."""
    metadata = source.metadata
    inputs, outputs = edges_of(source.model)
    try:
        return {
            "part": metadata["part"],
            "version": metadata["version"],
            "classes": json.loads(metadata.get("classes", "[]")),
            "base_hash": metadata["base_hash"],
            "input_size": int(metadata["input_size"]),
            "channels": int(metadata["channels"]),
            "normalisation": json.loads(metadata["normalisation"]),
            "metadata": dict(metadata),
            "inputs": inputs.as_dict(),
            "outputs": outputs.as_dict(),
        }
    except (KeyError, ValueError) as error:
        raise EngineError(
            "an ONNX file does not say what it is", seen=f"{source.path}: {error}", remedy="export it again"
        ) from error


def _edge(value: onnx.ValueInfoProto) -> TensorFacts:
    kind = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim)
    return TensorFacts(value.name, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name, shape)
