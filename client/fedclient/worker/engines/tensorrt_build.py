"""TensorRT plan build from an ONNX file: parse, verify that nothing was lost, build, run, compare.

The parser's silence is not believed: it has been seen to accept junk without an error. Layers are counted,
inputs and outputs compared, and what the plan answers is compared with ONNX Runtime on the CPU.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np
import onnx

from fedclient.worker.engines.device_memory import DeviceMemory, find_memory, platform_name
from fedclient.worker.engines.half import to_half
from fedclient.worker.engines.interface import TensorFacts
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
from fedclient.worker.engines.tensorrt_api import (
    Words,
    find_tensorrt,
    half_flag,
    memory_error,
    network_flags,
    parser_errors,
    progress_monitor,
    type_name,
    version_of,
)
from fedclient.worker.engines.tensorrt_engine import TensorRTEngine
from fedclient.worker.onnx_metadata import OnnxFile
from fedspect.errors import EngineError, InterruptedRunError, StorageError
from fedspect.files import write_bytes

LEAST_FREE = 256 << 20  # bytes; below this a build is not begun
MOST_WORKSPACE = 1 << 30
LARGEST_TIMING = 64 << 20
DIFFERENCE = {"float32": 1e-3, "float16": 5e-2}
"""How far a plan's answers may be from ONNX Runtime's, relative to their scale. The gate is stricter."""


@dataclass(frozen=True)
class TensorRTPlan:
    """What the builder made, and how many layers the parser had seen."""

    content: bytes
    layers: int
    workspace: int


class TensorRTRecipe(Recipe):
    """TensorRT from 8.5 to 11 on the first GPU."""

    def __init__(
        self, order: BuildOrder, tensorrt: Optional[Any] = None, memory: Optional[DeviceMemory] = None
    ) -> None:
        self.order = order
        self._tensorrt = tensorrt or find_tensorrt(order.tensorrt_module)
        self._memory = memory or find_memory()

    def key(self, source: OnnxFile) -> EngineKey:
        """A plan belongs to one version, one GPU, one system's release."""
        inputs, _ = edges_of(source.model)
        return EngineKey(
            onnx_hash=source.content_hash,
            kind=self.order.kind,
            runtime_version=version_of(self._tensorrt),
            device=platform_name(self._memory),
            precision=self.order.precision,
            shapes=shapes_of(inputs, f"1-{self.order.max_batch}"),
        )

    def build(self, source: OnnxFile, file: Path, tell: Tell) -> Dict[str, Any]:
        """Build the plan, compare its answers with ONNX Runtime's, and write it."""
        free = self._memory.free_bytes()
        plan = build_plan(
            self._tensorrt,
            source.model,
            precision=self.order.precision,
            max_batch=self.order.max_batch,
            workspace=workspace_of(free),
            timing=self._timing_path(),
            tell=tell,
        )
        tell("checking", None)
        facts = self._compared(source, plan)
        file.write_bytes(plan.content)
        return {
            **facts,
            "layers": plan.layers,
            "workspace": plan.workspace,
            "tensorrt_module": str(self._tensorrt.__name__),
        }

    def _compared(self, source: OnnxFile, plan: TensorRTPlan) -> Dict[str, Any]:
        inputs, outputs = edges_of(source.model)
        edges: Dict[str, Any] = {"inputs": inputs, "outputs": outputs, "metadata": source.metadata}
        batch = sample_of(source, min(2, self.order.max_batch))
        engine = TensorRTEngine(
            plan.content,
            tensorrt=self._tensorrt,
            memory=self._memory,
            precision=self.order.precision,
            **edges,
        )
        with engine, OnnxRuntimeEngine(source.path, **edges) as reference:
            seen, wanted = check_answers(engine, batch), check_answers(reference, batch)
            distance = float(np.abs(seen - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))
            if distance > DIFFERENCE[self.order.precision]:
                raise EngineError(
                    "a plan answers otherwise than ONNX Runtime",
                    seen=f"{distance:.2g} of the answers' scale, in {self.order.precision}",
                    accepted=f"{DIFFERENCE[self.order.precision]:g}",
                    remedy="fedclient engines build --precision float32, or --kind onnxruntime; for good: engines.toml",
                )
            return {"difference": distance, "memory_bytes": engine.memory_bytes}

    def _timing_path(self) -> Optional[Path]:
        if self.order.timing is None:
            return None
        name = f"{version_of(self._tensorrt)}-{platform_name(self._memory)}"
        return self.order.timing / (re.sub(r"[^A-Za-z0-9.]+", "-", name) + ".cache")


def build_plan(
    tensorrt: Any,
    model: onnx.ModelProto,
    *,
    precision: str,
    max_batch: int,
    workspace: int,
    timing: Optional[Path],
    tell: Tell,
) -> TensorRTPlan:
    """Parse and build; needs no GPU where the version does not (TensorRT-RTX).

    Raises:
        EngineError: the parser or the builder failed, or lost something on the way; with their own words.
        EngineMemoryError: memory ran out.
        InterruptedRunError: ``tell`` raised it, and the version can stop.

    """
    words = Words(tensorrt)
    tell("parsing", None)
    by_flag = half_flag(tensorrt)
    if precision == "float16" and by_flag is None:
        model = to_half(model)
    try:
        builder = tensorrt.Builder(words.logger)
    except (TypeError, RuntimeError) as error:  # a factory that returned nothing
        raise words.error("TensorRT gives no builder", detail=str(error), remedy="is a GPU there?") from error
    network = builder.create_network(network_flags(tensorrt))
    parser = tensorrt.OnnxParser(network, words.logger)  # it owns the weights until the plan is built
    layers = _parse(tensorrt, parser, network, model, words)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, workspace)
    if precision == "float16" and by_flag is not None:
        config.set_flag(by_flag)
    if precision == "float32":
        config.clear_flag(tensorrt.BuilderFlag.TF32)  # ten bits of a number are not float32
    config.add_optimization_profile(_profile(builder, network, max_batch))
    cache = _TimingCache(config, timing)
    watch = _Watch(tell)
    monitor = progress_monitor(tensorrt, watch.step)
    if monitor is not None:
        config.progress_monitor = monitor
    tell("building", None if monitor is None else 0.0)
    content = builder.build_serialized_network(network, config)
    cache.save()
    if watch.stopped is not None:
        raise watch.stopped
    if content is None:
        raise words.error(
            "TensorRT did not build a plan", remedy="choose another precision, or the kind onnxruntime"
        )
    return TensorRTPlan(bytes(content), layers, workspace)


def workspace_of(free: int) -> int:
    """Half of the free memory, at most a gigabyte.

    Raises:
        EngineMemoryError: so little is free that a build would only push the line aside.

    """
    if free < LEAST_FREE:
        raise memory_error("a build is not begun", f"{free >> 20} MB free, {LEAST_FREE >> 20} needed")
    return min(free // 2, MOST_WORKSPACE)


def _parse(tensorrt: Any, parser: Any, network: Any, model: onnx.ModelProto, words: Words) -> int:
    """Parse, and see that everything arrived; answers the number of layers."""
    if not parser.parse(model.SerializeToString()):
        raise words.error(
            "TensorRT's parser does not take the ONNX",
            detail=parser_errors(parser),
            remedy="use the kind onnxruntime, and report this line",
        )
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    kept = sum(
        network.get_layer(place).type == tensorrt.LayerType.CONVOLUTION for place in range(network.num_layers)
    )
    inputs = [_facts(network.get_input(place)) for place in range(network.num_inputs)]
    outputs = [_facts(network.get_output(place)) for place in range(network.num_outputs)]
    wanted = edges_of(model)
    if not network.num_layers or kept != convolutions or (inputs, outputs) != ([wanted[0]], [wanted[1]]):
        raise EngineError(
            "TensorRT's parser lost a part of the ONNX without a word",
            seen=f"{network.num_layers} layers, {kept} convolutions, {inputs} -> {outputs}",
            accepted=f"{convolutions} convolutions, {wanted[0]} -> {wanted[1]}",
            remedy="use the kind onnxruntime, and report this line",
        )
    return int(network.num_layers)


def _facts(tensor: Any) -> TensorFacts:
    shape: Tuple[Optional[int], ...] = tuple(None if size < 0 else int(size) for size in tensor.shape)
    return TensorFacts(str(tensor.name), type_name(tensor.dtype), shape)


def _profile(builder: Any, network: Any, max_batch: int) -> Any:
    """Batches of 1, which is what is made fast, to ``max_batch``."""
    source = network.get_input(0)
    profile = builder.create_optimization_profile()
    rest = [int(size) for size in source.shape][1:]
    profile.set_shape(source.name, *[(count, *rest) for count in (1, 1, max_batch)])
    return profile


class _Watch:
    """Between the monitor, which must answer, and ``tell``, which may raise."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told = 0.0
        self.stopped: Optional[InterruptedRunError] = None

    def step(self, share: float) -> bool:
        try:
            self._tell("building", max(share, self._told))
        except InterruptedRunError as error:
            self.stopped = error
        self._told = max(share, self._told)
        return self.stopped is None


class _TimingCache:
    """What TensorRT measured in earlier builds on this device; a lost or foreign one costs only time."""

    def __init__(self, config: Any, path: Optional[Path]) -> None:
        self._config, self._path = config, path
        if path is None:
            return
        content = b""
        with contextlib.suppress(OSError):
            content = path.read_bytes() if path.stat().st_size <= LARGEST_TIMING else b""
        if not config.set_timing_cache(config.create_timing_cache(content), False) and content:
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def save(self) -> None:
        cache = self._config.get_timing_cache()
        if self._path is None or cache is None:
            return
        content = cache.serialize()
        if content is not None:
            with contextlib.suppress(StorageError):
                write_bytes(self._path, bytes(content))
