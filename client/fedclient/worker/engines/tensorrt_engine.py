"""TensorRT engine: named tensors, one context, one stream; the same calls from 8.5 to 11.

A plan belongs to one version of TensorRT and one GPU. Both are compared before TensorRT sees the plan, since
its own answer to a foreign one is ``None`` and a line in its log.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Tuple

import numpy as np

from fedclient.worker.engines.device_memory import DeviceMemory, find_memory, platform_name
from fedclient.worker.engines.interface import Engine, TensorFacts
from fedclient.worker.engines.stored import StoredEngine
from fedclient.worker.engines.tensorrt_api import Words, find_tensorrt, type_name, version_of
from fedspect.errors import EngineError

REBUILD = "build the engine again with `fedclient engines build`; the line keeps what it runs until then"


@dataclass
class _Buffers:
    """Device addresses for the largest batch."""

    source: int
    result: int


class TensorRTEngine(Engine):
    """One execution context; callers take turns. Batches above the profile's largest go in pieces.

    Raises:
        EngineError: the plan does not load, or its tensors are not those that the sidecar says.
        EngineMemoryError: the GPU's memory does not hold it.

    """

    kind = "tensorrt"

    def __init__(
        self,
        plan: bytes,
        *,
        tensorrt: Any,
        memory: DeviceMemory,
        inputs: TensorFacts,
        outputs: TensorFacts,
        metadata: Mapping[str, str],
        precision: str,
    ) -> None:
        self.inputs, self.outputs, self.metadata, self.precision = inputs, outputs, metadata, precision
        self._memory, self._lock = memory, threading.Lock()
        self._words = Words(tensorrt)
        self._context: Optional[Any] = None
        self._buffers: Optional[_Buffers] = None
        self._runtime = tensorrt.Runtime(self._words.logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise self._words.error("TensorRT does not load a plan", remedy=REBUILD)
        self.max_batch = self._check_tensors(tensorrt)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._words.error(
                "TensorRT gives a plan no context", remedy="free memory on the device, then try again"
            )
        source, result = (_bytes_of(facts, self.max_batch) for facts in (inputs, outputs))
        self._buffers = self._allocated(source, result)
        held = _device_bytes(self._engine)
        self.memory_bytes = None if held is None else held + source + result + len(plan)

    @classmethod
    def open(
        cls,
        stored: StoredEngine,
        *,
        inputs: TensorFacts,
        outputs: TensorFacts,
        metadata: Mapping[str, str],
        memory: Optional[DeviceMemory] = None,
    ) -> TensorRTEngine:
        """Open a stored plan with the TensorRT that it was built by; errors as the class."""
        tensorrt = find_tensorrt(stored.sidecar.get("tensorrt_module"))
        memory = memory or find_memory()
        here = (version_of(tensorrt), platform_name(memory))
        built = (stored.key.runtime_version, stored.key.device)
        if here != built:
            raise EngineError(
                "an engine was built for another TensorRT or another device",
                seen=f"built for {built[0]} on {built[1]}",
                accepted=f"{here[0]} on {here[1]}",
                remedy=REBUILD,
            )
        return cls(
            stored.file.read_bytes(),
            tensorrt=tensorrt,
            memory=memory,
            inputs=inputs,
            outputs=outputs,
            metadata=metadata,
            precision=stored.key.precision,
        )

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Answer a batch; errors as ``Engine.run``."""
        self.inputs.check(batch)
        pieces = [batch[start : start + self.max_batch] for start in range(0, len(batch), self.max_batch)]
        with self._lock:
            answers = [self._answer(np.ascontiguousarray(piece)) for piece in pieces]
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def close(self) -> None:
        """Give back buffers, context and plan, in this order."""
        with self._lock:
            buffers, self._buffers = self._buffers, None
            if buffers is not None:
                self._memory.free(buffers.source)
                self._memory.free(buffers.result)
            self._context = None
            self._engine = None

    def _answer(self, batch: np.ndarray) -> np.ndarray:
        context, buffers = self._context, self._buffers
        if context is None or buffers is None:
            raise EngineError("the engine is closed", remedy="open it again")
        result = np.empty((len(batch), *_sizes(self.outputs)), self.outputs.dtype)
        done = (
            context.set_input_shape(self.inputs.name, tuple(batch.shape))
            and context.set_tensor_address(self.inputs.name, buffers.source)
            and context.set_tensor_address(self.outputs.name, buffers.result)
        )
        if not done or tuple(context.get_tensor_shape(self.outputs.name)) != result.shape:
            raise self._words.error("TensorRT does not take a batch", remedy=REBUILD)
        self._memory.upload(buffers.source, batch)
        if not context.execute_async_v3(self._memory.stream):
            raise self._words.error("TensorRT failed at a batch", remedy="free memory, or restart the device")
        self._memory.download(result, buffers.result)
        self._memory.synchronise()
        return result

    def _check_tensors(self, tensorrt: Any) -> int:
        """Compare the plan's tensors with the sidecar's; answer the largest batch."""
        seen: List[Tuple[bool, str, str, Tuple[int, ...]]] = []
        for place in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(place)
            mode = self._engine.get_tensor_mode(name)
            shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
            is_input = mode == tensorrt.TensorIOMode.INPUT
            seen.append((is_input, name, type_name(self._engine.get_tensor_dtype(name)), shape))
        wanted = [
            (is_input, facts.name, facts.dtype, tuple(-1 if size is None else size for size in facts.shape))
            for is_input, facts in ((True, self.inputs), (False, self.outputs))
        ]
        if sorted(seen) != sorted(wanted):
            raise EngineError(
                "a plan has other inputs and outputs than its sidecar says",
                seen="; ".join(f"{name} {kind} {shape}" for _, name, kind, shape in seen),
                accepted="; ".join(f"{name} {kind} {shape}" for _, name, kind, shape in wanted),
                remedy=REBUILD,
            )
        return int(self._engine.get_tensor_profile_shape(self.inputs.name, 0)[2][0])

    def _allocated(self, source: int, result: int) -> _Buffers:
        first = self._memory.allocate(source)
        try:
            return _Buffers(first, self._memory.allocate(result))
        except EngineError:
            self._memory.free(first)
            raise


def _sizes(facts: TensorFacts) -> Tuple[int, ...]:
    """All dimensions but the batch; only the batch is free in our graphs."""
    return tuple(int(size or 0) for size in facts.shape[1:])


def _bytes_of(facts: TensorFacts, batch: int) -> int:
    return int(np.prod([batch, *_sizes(facts)])) * np.dtype(facts.dtype).itemsize


def _device_bytes(engine: Any) -> Optional[int]:
    """What the plan's activations take; the name changed with 10."""
    for name in ("device_memory_size_v2", "device_memory_size"):
        if hasattr(engine, name):
            return int(getattr(engine, name))
    return None
