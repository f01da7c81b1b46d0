"""ONNX's own reference evaluator as an engine: slow, and a second opinion on any runtime."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from fedclient.worker.engines.interface import Engine
from fedclient.worker.engines.kinds import EngineKind
from fedclient.worker.engines.recipe import Recipe, check_answers, edges_of, sample_of, shapes_of
from fedclient.worker.engines.stored import EngineKey
from fedspect.errors import EngineError


class ReferenceEngine(Engine):
    """An open graph."""

    kind, precision = "onnx-reference", "float32"

    def __init__(self, file, inputs, outputs, metadata):
        self.inputs, self.outputs, self.metadata = inputs, outputs, metadata
        self._evaluator = ReferenceEvaluator(onnx.load(str(file)))

    def run(self, batch):
        self.inputs.check(batch)
        if self._evaluator is None:
            raise EngineError("the engine is closed")
        return np.asarray(self._evaluator.run(None, {self.inputs.name: batch})[0])

    def close(self):
        self._evaluator = None


class ReferenceRecipe(Recipe):
    """The engine's file is the graph itself."""

    def __init__(self, order):
        self.order = order

    def key(self, source):
        inputs, _ = edges_of(source.model)
        return EngineKey(
            onnx_hash=source.content_hash,
            kind="onnx-reference",
            runtime_version=onnx.__version__,
            device="any",
            precision="float32",
            shapes=shapes_of(inputs, "any"),
        )

    def build(self, source, file, tell):
        tell("copying", None)
        shutil.copyfile(str(source.path), str(file))
        inputs, outputs = edges_of(source.model)
        check_answers(ReferenceEngine(file, inputs, outputs, source.metadata), sample_of(source, 1))
        return {}


class ReferenceKind(EngineKind):
    """The entry point."""

    def available(self):
        return True

    def recipe(self, order):
        return ReferenceRecipe(order)

    def open(self, stored, *, inputs, outputs, metadata, threads):
        return ReferenceEngine(stored.file, inputs, outputs, metadata)
