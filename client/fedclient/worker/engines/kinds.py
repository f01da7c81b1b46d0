"""Engine kinds: what runs a deploy graph, by name; Fedspect's own two and those of other packages.

A package adds a kind by an entry point of the group ``fedspect.engines``: a class below ``EngineKind``
(``docs/extend/engine.md``). Everything else asks here, so nothing else knows how many kinds there are. Nothing is
imported before a kind is asked to build or to open.
"""

from __future__ import annotations

import abc
import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, List, Mapping

from fedclient.engine_files import GROUP
from fedclient.worker.engines.interface import Engine, TensorFacts
from fedclient.worker.engines.stored import StoredEngine
from fedspect import plugins
from fedspect.errors import EngineError, SettingsError, did_you_mean

if TYPE_CHECKING:
    from fedclient.worker.engines.recipe import BuildOrder, Recipe

logger = logging.getLogger("fedclient.worker.engines")

OWN = {
    "tensorrt": "fedclient.worker.engines.kinds:TensorRTKind",
    "onnxruntime": "fedclient.worker.engines.kinds:OnnxRuntimeKind",
}
"""The best first."""
NAMES = plugins.NameIn(GROUP, tuple(OWN))
GPU_SIGNS = ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu/igpu0")


class EngineKind(abc.ABC):
    """One kind of engine: whether it is to be had here, how it is built and how it is opened."""

    form: ClassVar[str] = "cpu"
    """The form of CondenseNetV2's deploy graph that suits it (``docs/deploy-graph.md``)."""
    precision: ClassVar[str] = "float32"
    """What it counts in unless engines.toml says otherwise."""

    @abc.abstractmethod
    def available(self) -> bool:
        """Whether engines of this kind can be built and run here; looks, but imports no runtime."""

    @abc.abstractmethod
    def recipe(self, order: BuildOrder) -> Recipe:
        """How an engine is built, in the builder's process."""

    @abc.abstractmethod
    def open(
        self,
        stored: StoredEngine,
        *,
        inputs: TensorFacts,
        outputs: TensorFacts,
        metadata: Mapping[str, str],
        threads: int,
    ) -> Engine:
        """An engine that was built; raises ``ImportError`` where its runtime is not installed."""


class OnnxRuntimeKind(EngineKind):
    """ONNX Runtime on the CPU."""

    def available(self) -> bool:
        """Where the package is."""
        return importlib.util.find_spec("onnxruntime") is not None

    def recipe(self, order: BuildOrder) -> Recipe:
        """A checked copy of the ONNX file."""
        from fedclient.worker.engines.onnxruntime_build import OnnxRuntimeRecipe

        return OnnxRuntimeRecipe(order)

    def open(
        self,
        stored: StoredEngine,
        *,
        inputs: TensorFacts,
        outputs: TensorFacts,
        metadata: Mapping[str, str],
        threads: int,
    ) -> Engine:
        """A session of its own."""
        from fedclient.worker.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(
            stored.file, inputs=inputs, outputs=outputs, metadata=metadata, threads=threads
        )


class TensorRTKind(EngineKind):
    """TensorRT on an NVIDIA GPU."""

    form = "tensorrt"
    precision = "float16"

    def available(self) -> bool:
        """Where its Python module and a GPU are."""
        return importlib.util.find_spec("tensorrt") is not None and any(
            Path(sign).exists() for sign in GPU_SIGNS
        )

    def recipe(self, order: BuildOrder) -> Recipe:
        """A plan for this GPU."""
        from fedclient.worker.engines.tensorrt_build import TensorRTRecipe

        return TensorRTRecipe(order)

    def open(
        self,
        stored: StoredEngine,
        *,
        inputs: TensorFacts,
        outputs: TensorFacts,
        metadata: Mapping[str, str],
        threads: int,
    ) -> Engine:
        """A plan that was built for this GPU and this version; ``threads`` mean nothing to it."""
        from fedclient.worker.engines.tensorrt_engine import TensorRTEngine

        return TensorRTEngine.open(stored, inputs=inputs, outputs=outputs, metadata=metadata)


def engine_kind(name: str) -> EngineKind:
    """A kind by name.

    Raises:
        EngineError: there is none of that name.
        SettingsError: another package's cannot be loaded, or is none.

    """
    if name not in OWN and name not in (names := NAMES.names()):
        raise EngineError(
            "no such kind of engine",
            seen=name,
            accepted=", ".join(names),
            remedy=did_you_mean(name, names) or "install the package that adds it for the worker's Python",
        )
    found = plugins.resolve(GROUP, name, OWN)
    if not (isinstance(found, type) and issubclass(found, EngineKind)):
        raise SettingsError(
            f"the engine kind {name} cannot be used",
            seen=repr(found)[:100],
            accepted="a class below fedclient.worker.engines.kinds.EngineKind",
            remedy="mend or uninstall the package that registers it",
        )
    return found()


def available_kinds() -> List[str]:
    """Kinds of engine that can be built and run here, the best first; another package's come after ours."""
    return [name for name in NAMES.names() if _available(name)]


def _available(name: str) -> bool:
    try:
        return engine_kind(name).available()
    except Exception as error:  # a broken package must not take the others along
        logger.warning("the engine kind %s is left out: %s", name, error)
        return False
