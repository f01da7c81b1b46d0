"""A stand-in for each recorded TensorRT version: the names that version has, and no others.

``make("8.5.2")`` answers a module. Its classes are cut down to the recorded names: anything else raises
``AttributeError``, when it is read and when it is set. A name that is recorded but not played raises
``NotImplementedError``. A plan holds the ONNX; a context answers through ONNX Runtime.
``module.faults`` makes it fail; ``module.measured`` lists what builds had to measure.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np
import onnx
import onnxruntime

NAMES: Dict[str, Any] = json.loads(
    Path(__file__).with_name("tensorrt_names.json").read_text(encoding="utf-8")
)
VERSIONS: List[str] = NAMES["versions"]
MAGIC = b"FAKEPLAN"
ONNX_TYPES = {1: "FLOAT", 2: "UINT8", 10: "HALF"}


def names_of(version: str, kind: str) -> Set[str]:
    """The recorded public names of a class; empty where the version lacks the class."""
    return {name for name, found in NAMES[kind].items() if found == "*" or version in found}


def make(version: str, faults: Sequence[str] = (), name: str = "tensorrt") -> Any:
    """A module that looks like that version."""
    assert version in VERSIONS, version
    module: Any = ModuleType(name)
    module.__version__ = version
    module.faults = set(faults)
    module.measured = []
    for kind in NAMES:
        names = names_of(version, kind) if kind != "versions" else set()
        if not names:
            continue
        played = globals().get(f"_{kind}")
        if played is not None:
            setattr(module, kind, _cut(kind, played, names, module))
        else:
            members = sorted(each for each in names if each.isupper())
            setattr(module, kind, enum.IntEnum(kind, {each: place for place, each in enumerate(members)}))
    return module


def _cut(kind: str, played: type, names: Set[str], module: Any) -> type:
    """The played class with the recorded names only."""

    def refuse_set(self: Any, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in names:
            raise AttributeError(f"{kind} of {module.__version__} has no {name}")
        object.__setattr__(self, name, value)

    body = {name: value for name, value in vars(played).items() if name.startswith("_") or name in names}
    for name in names - set(body):
        body[name] = property(_unplayed(kind, name))
    body.update(__setattr__=refuse_set, _module=module)
    body.pop("__dict__", None)
    body.pop("__weakref__", None)
    return type(kind, (), body)


def _unplayed(kind: str, name: str) -> Any:
    def get(self: Any) -> Any:
        raise NotImplementedError(f"{kind}.{name} is recorded, but not played")

    return get


class Severity(enum.IntEnum):
    """TensorRT's severities."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class _ILogger:
    def __init__(self) -> None:
        self._ready = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


def _say(logger: Any, severity: Severity, text: str) -> None:
    assert logger._ready, "ILogger.__init__ was not called"
    logger.log(severity, text)


class _IProgressMonitor:
    def __init__(self) -> None:
        self._ready = True


class _ITensor:
    def __init__(self, name: str, dtype: Any, shape: Tuple[int, ...]) -> None:
        self._facts = (name, dtype, shape)

    name = property(lambda self: self._facts[0])
    dtype = property(lambda self: self._facts[1])
    shape = property(lambda self: self._facts[2])


class _ILayer:
    def __init__(self, kind: Any) -> None:
        self._kind = kind

    type = property(lambda self: self._kind)


class _INetworkDefinition:
    def __init__(self, flags: int) -> None:
        explicit = getattr(self._module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)  # type: ignore[attr-defined]
        self._explicit = explicit is None or bool(flags >> int(explicit) & 1)
        assert explicit is not None or flags == 0, "no such flag in this version"
        self._layers: List[Any] = []
        self._inputs: List[Any] = []
        self._outputs: List[Any] = []
        self._model: Optional[onnx.ModelProto] = None

    num_layers = property(lambda self: len(self._layers))
    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))

    def get_layer(self, index: int) -> Any:
        return self._layers[index]

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]


class _ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text

    def node(self) -> int:
        return 3

    def code(self) -> int:
        return 1


class _OnnxParser:
    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger = network, logger
        self._errors: List[Any] = []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse(self, model: bytes, path: Optional[str] = None) -> bool:
        module, network = self._module, self._network  # type: ignore[attr-defined]
        if "silent parser" in module.faults:
            return True
        found = onnx.ModelProto.FromString(model)
        problem = None
        if not network._explicit:
            problem = "networks without an explicit batch are not supported"
        elif found.opset_import[0].version > 17:
            problem = "opset 18"
        elif "parser" in module.faults:
            problem = "no importer for operator HardSwish"
        if problem:
            self._errors.append(module.ParserError(problem))
            return False
        kinds = ["CONVOLUTION" if node.op_type == "Conv" else "ACTIVATION" for node in found.graph.node]
        if "lost layer" in module.faults:
            kinds.remove("CONVOLUTION")
        network._layers.extend(module.ILayer(module.LayerType[kind]) for kind in kinds)
        network._inputs.extend(_tensor(module, value) for value in found.graph.input)
        network._outputs.extend(_tensor(module, value) for value in found.graph.output)
        network._model = found
        return True


def _tensor(module: Any, value: onnx.ValueInfoProto) -> Any:
    kind = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
    return module.ITensor(value.name, module.DataType[ONNX_TYPES[kind.elem_type]], shape)


class _IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: Dict[str, List[Tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class _IHostMemory:
    def __init__(self, content: bytes) -> None:
        self._content = content

    nbytes = property(lambda self: len(self._content))

    def __bytes__(self) -> bytes:
        return self._content


class _ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._entries: Dict[str, Any] = json.loads(content) if content else {"version": None}

    def serialize(self) -> Any:
        entries = {**self._entries, "version": self._module.__version__}  # type: ignore[attr-defined]
        return self._module.IHostMemory(json.dumps(entries).encode())  # type: ignore[attr-defined]


class _IBuilderConfig:
    def __init__(self) -> None:
        self._flags = {"TF32"}
        self._pools: Dict[str, int] = {}
        self._profiles: List[Any] = []
        self._cache: Optional[Any] = None
        self._monitor: Optional[Any] = None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool.name] = pool_size

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        return self._module.ITimingCache(serialized_timing_cache)  # type: ignore[attr-defined]

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._entries["version"] not in (None, self._module.__version__):  # type: ignore[attr-defined]
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    progress_monitor = property(
        lambda self: self._monitor, lambda self, value: object.__setattr__(self, "_monitor", value)
    )


class _Builder:
    def __init__(self, logger: Any) -> None:
        if "no builder" in self._module.faults:  # type: ignore[attr-defined]
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int = 0) -> Any:
        return self._module.INetworkDefinition(flags)  # type: ignore[attr-defined]

    def create_builder_config(self) -> Any:
        return self._module.IBuilderConfig()  # type: ignore[attr-defined]

    def create_optimization_profile(self) -> Any:
        return self._module.IOptimizationProfile()  # type: ignore[attr-defined]

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        module = self._module  # type: ignore[attr-defined]
        assert config._profiles and config._pools.get("WORKSPACE", 0) > 0
        if "build memory" in module.faults:
            _say(self._logger, Severity.ERROR, "[defaultAllocator.cpp] Requested 512 MB: out of memory")
            return None
        if "build" in module.faults:
            _say(self._logger, Severity.ERROR, "Could not find any implementation for node block1/layer1")
            return None
        if not self._measure(network, config):
            return None
        header = {
            "version": module.__version__,
            "flags": sorted(config._flags),
            "profile": config._profiles[0]._shapes,
            "pools": config._pools,
        }
        content = MAGIC + json.dumps(header).encode() + b"\n" + network._model.SerializeToString()
        return module.IHostMemory(content)

    def _measure(self, network: Any, config: Any) -> bool:
        """Times each layer that no cache knows; the monitor may stop it."""
        module, monitor = self._module, config._monitor  # type: ignore[attr-defined]
        known = config._cache._entries if config._cache is not None else {}
        nodes = [node.SerializeToString() for node in network._model.graph.node]
        if monitor is not None:
            assert monitor._ready, "IProgressMonitor.__init__ was not called"
            monitor.phase_start("Building engine", None, 2)
            monitor.phase_start("Timing", "Building engine", len(nodes))
        for place, node in enumerate(nodes):
            name = hashlib.sha256(node).hexdigest()[:16]
            if name not in known:
                module.measured.append(name)
                known[name] = 1
                if "slow" in module.faults:
                    time.sleep(0.02)
                if "killed" in module.faults and place == 20:
                    os.kill(os.getpid(), 9)
            if monitor is not None and not monitor.step_complete("Timing", place):
                return False
        if monitor is not None:
            monitor.phase_finish("Timing")
            monitor.step_complete("Building engine", 0)
            monitor.step_complete("Building engine", 1)
            monitor.phase_finish("Building engine")
        return True


class _Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        module = self._module  # type: ignore[attr-defined]
        head, _, model = bytes(serialized_engine).partition(b"\n")
        header = json.loads(head[len(MAGIC) :]) if head.startswith(MAGIC) else {"version": "unknown"}
        if header["version"] != module.__version__:
            text = f"The engine plan file is not compatible with this version, expecting {module.__version__}"
            _say(self._logger, Severity.ERROR, f"{text} got {header['version']}, please rebuild.")
            return None
        return module.ICudaEngine(self._logger, header, model)


class _ICudaEngine:
    def __init__(self, logger: Any, header: Dict[str, Any], model: bytes) -> None:
        self._logger, self._header = logger, header
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        graph = onnx.ModelProto.FromString(model).graph
        module = self._module  # type: ignore[attr-defined]
        self._tensors = [_tensor(module, value) for value in (graph.output[0], graph.input[0])]
        self._modes = [module.TensorIOMode.OUTPUT, module.TensorIOMode.INPUT]

    num_io_tensors = property(lambda self: len(self._tensors))
    device_memory_size = property(lambda self: 4096)
    device_memory_size_v2 = property(lambda self: 4096)

    def _place(self, name: str) -> int:
        return [tensor.name for tensor in self._tensors].index(name)

    def get_tensor_name(self, index: int) -> str:
        return str(self._tensors[index].name)

    def get_tensor_mode(self, name: str) -> Any:
        return self._modes[self._place(name)]

    def get_tensor_shape(self, name: str) -> Any:
        return self._tensors[self._place(name)].shape

    def get_tensor_dtype(self, name: str) -> Any:
        return self._tensors[self._place(name)].dtype

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Any:
        return self._header["profile"][name]

    def create_execution_context(self) -> Any:
        if "context memory" in self._module.faults:  # type: ignore[attr-defined]
            _say(self._logger, Severity.ERROR, "ExecutionContext: Cuda Runtime (out of memory)")
            return None
        return self._module.IExecutionContext(self)  # type: ignore[attr-defined]


class _IExecutionContext:
    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._shape: Optional[Tuple[int, ...]] = None
        self._addresses: Dict[str, int] = {}

    def set_input_shape(self, name: str, shape: Any) -> bool:
        most = self._engine._header["profile"][name][2]
        if shape[0] > most[0]:
            _say(self._engine._logger, Severity.ERROR, f"Supplied binding dimension {shape} for {name}")
            return False
        self._shape = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def get_tensor_shape(self, name: str) -> Any:
        shape = self._engine.get_tensor_shape(name)
        return shape if self._shape is None else (self._shape[0], *shape[1:])

    def execute_async_v3(self, stream_handle: int) -> bool:
        faults = self._module.faults  # type: ignore[attr-defined]
        if "execute" in faults:
            _say(self._engine._logger, Severity.ERROR, "Cuda Runtime (misaligned address)")
            return False
        result, source = (tensor.name for tensor in self._engine._tensors)
        session = self._engine._session
        kind = np.uint8 if "uint8" in session.get_inputs()[0].type else np.float32
        batch = np.empty(self._shape or (), kind)
        ctypes.memmove(batch.ctypes.data, self._addresses[source], batch.nbytes)
        answer = session.run(None, {source: batch})[0]
        if "FP16" in self._engine._header["flags"]:
            answer = answer.astype(np.float16).astype(np.float32)
        if "wrong answers" in faults:
            answer = answer + 1
        answer = np.ascontiguousarray(answer, np.float32)
        ctypes.memmove(self._addresses[result], answer.ctypes.data, answer.nbytes)
        return True
