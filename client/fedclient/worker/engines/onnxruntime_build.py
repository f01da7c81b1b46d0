"""ONNX Runtime engine build: a checked copy of the ONNX file, after it was opened and has answered.

Saving ONNX Runtime's own optimised graph instead was measured: model A's whole opens in 52 ms rather than 67,
model C's in 99 rather than 136, and the saved graph belongs to the vector width of one processor. Not worth it.
"""

from __future__ import annotations

import platform
import shutil
import time
from pathlib import Path
from typing import Any, Dict

import onnxruntime

from fedclient.worker.engines.onnxruntime_engine import OnnxRuntimeEngine
from fedclient.worker.engines.recipe import (
    BuildOrder,
    Recipe,
    Tell,
    check_answers,
    edges_of,
    sample_of,
    shapes_of,
)
from fedclient.worker.engines.stored import EngineKey
from fedclient.worker.onnx_metadata import OnnxFile
from fedspect.errors import EngineError


class OnnxRuntimeRecipe(Recipe):
    """ONNX Runtime's CPU provider, float32."""

    def __init__(self, order: BuildOrder) -> None:
        self.order = order
        if order.precision != "float32":
            raise EngineError(
                "ONNX Runtime on the CPU has no such precision",
                seen=order.precision,
                accepted="float32",
                remedy="choose float32, or the kind tensorrt where there is a GPU",
            )

    def key(self, source: OnnxFile) -> EngineKey:
        """The batch is free, so that one engine serves every size of it."""
        inputs, _ = edges_of(source.model)
        return EngineKey(
            onnx_hash=source.content_hash,
            kind=self.order.kind,
            runtime_version=onnxruntime.__version__,
            device=f"cpu-{platform.machine()}",
            precision=self.order.precision,
            shapes=shapes_of(inputs, "any"),
        )

    def build(self, source: OnnxFile, file: Path, tell: Tell) -> Dict[str, Any]:
        """Copy, open, and let it answer a batch of two and of one."""
        tell("copying", None)
        shutil.copyfile(str(source.path), str(file))
        tell("checking", None)
        inputs, outputs = edges_of(source.model)
        begun = time.perf_counter()
        with OnnxRuntimeEngine(file, inputs=inputs, outputs=outputs, metadata=source.metadata) as engine:
            opened = time.perf_counter() - begun
            check_answers(engine, sample_of(source, 2))
            begun = time.perf_counter()
            check_answers(engine, sample_of(source, 1))
            answered = time.perf_counter() - begun
        return {"open_seconds": round(opened, 4), "answer_seconds": round(answered, 4)}
