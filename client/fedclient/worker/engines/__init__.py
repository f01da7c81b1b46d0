"""Inference engines: the runtimes of the line, how engines are built and where they are stored.

``interface`` says what an engine is, ``store`` keeps built ones, ``build`` makes one in a child process,
``opening`` opens one, ``model`` puts a deployment's engines together. Nothing here imports torch, TensorRT or
ONNX Runtime before it is needed.
"""

from __future__ import annotations

from fedclient.worker.engines.build import BuildEvent, build_engine
from fedclient.worker.engines.interface import Engine, TensorFacts
from fedclient.worker.engines.kinds import EngineKind, available_kinds, engine_kind
from fedclient.worker.engines.model import LineAnswer, LineModel, open_model
from fedclient.worker.engines.opening import open_engine
from fedclient.worker.engines.store import EngineStore
from fedclient.worker.engines.stored import EngineKey, StoredEngine

__all__ = [
    "BuildEvent",
    "Engine",
    "EngineKey",
    "EngineKind",
    "EngineStore",
    "LineAnswer",
    "LineModel",
    "StoredEngine",
    "TensorFacts",
    "available_kinds",
    "build_engine",
    "engine_kind",
    "open_engine",
    "open_model",
]
