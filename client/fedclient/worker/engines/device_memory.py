"""A GPU's memory and one stream on it, through cuda-python or torch, whichever is there.

cuda-python is looked for first: it is small, and the process of the line should not carry torch.
"""

from __future__ import annotations

import abc
import importlib
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from fedclient.worker.engines.tensorrt_api import memory_error, speaks_of_memory
from fedspect.errors import EngineError

CUDA_PYTHON = ("cuda.bindings.runtime", "cuda.cudart")
TEGRA_RELEASE = Path("/etc/nv_tegra_release")


class DeviceMemory(abc.ABC):
    """Buffers by address. Copies and engines share ``stream``; ``synchronise`` waits for all of it."""

    stream: int

    @abc.abstractmethod
    def allocate(self, nbytes: int) -> int:
        """An address of that many bytes; raises ``EngineMemoryError`` where there are not so many."""

    @abc.abstractmethod
    def free(self, address: int) -> None:
        """Give one back."""

    @abc.abstractmethod
    def upload(self, address: int, values: np.ndarray) -> None:
        """Copy a contiguous array there."""

    @abc.abstractmethod
    def download(self, values: np.ndarray, address: int) -> None:
        """Fill a contiguous array from there; complete after ``synchronise``."""

    @abc.abstractmethod
    def synchronise(self) -> None:
        """Wait for everything; raises ``EngineError`` for what failed meanwhile."""

    @abc.abstractmethod
    def free_bytes(self) -> int:
        """How much is free on the device now."""

    @abc.abstractmethod
    def device_name(self) -> str:
        """The GPU's name and compute capability, such as "Xavier sm72"."""


class CudaPythonMemory(DeviceMemory):
    """Through cuda-python's runtime module; raises ``EngineError`` where there is no GPU."""

    def __init__(self, runtime: Any) -> None:
        self._cuda = runtime
        self._stream = self._call(runtime.cudaStreamCreate)
        self.stream = int(self._stream)

    def allocate(self, nbytes: int) -> int:
        """By cudaMalloc."""
        return int(self._call(self._cuda.cudaMalloc, max(1, nbytes)))

    def free(self, address: int) -> None:
        """By cudaFree."""
        self._call(self._cuda.cudaFree, address)

    def upload(self, address: int, values: np.ndarray) -> None:
        """By cudaMemcpyAsync from the host."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._cuda.cudaMemcpyAsync, address, values.ctypes.data, values.nbytes, kind, self._stream)

    def download(self, values: np.ndarray, address: int) -> None:
        """By cudaMemcpyAsync to the host."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._cuda.cudaMemcpyAsync, values.ctypes.data, address, values.nbytes, kind, self._stream)

    def synchronise(self) -> None:
        """By cudaStreamSynchronize."""
        self._call(self._cuda.cudaStreamSynchronize, self._stream)

    def free_bytes(self) -> int:
        """cudaMemGetInfo; on a Jetson, where memory is shared, what the system could free counts too."""
        free = int(self._call(self._cuda.cudaMemGetInfo))
        return max(free, _available()) if TEGRA_RELEASE.exists() else free

    def device_name(self) -> str:
        """By cudaGetDeviceProperties of the first GPU."""
        facts = self._call(self._cuda.cudaGetDeviceProperties, 0)
        name = facts.name.decode() if isinstance(facts.name, bytes) else str(facts.name)
        return f"{name.strip(chr(0)).strip()} sm{facts.major}{facts.minor}"

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call, raise what the error code means, answer the first result."""
        try:
            error, *results = function(*arguments)
        except RuntimeError as missing:  # cuda-python without a driver
            raise _no_gpu(str(missing)) from missing
        if int(error) == 0:
            return results[0] if results else None
        words = f"{function.__name__}: {getattr(error, 'name', error)}"
        if "MemoryAllocation" in words or int(error) == 2:
            raise memory_error("the GPU's memory is used up", words)
        if "Driver" in words or "NoDevice" in words:
            raise _no_gpu(words)
        raise EngineError("the GPU failed", seen=words, remedy="look at the system's log; restart the device")


class TorchMemory(DeviceMemory):
    """Through torch. ``device`` "cpu" is for trying this class where there is no GPU."""

    def __init__(self, torch: Any, device: str = "cuda") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise _no_gpu(f"torch {torch.__version__} sees none")
        self._torch, self._device = torch, device
        self._stream = torch.cuda.Stream() if device == "cuda" else None
        self.stream = 0 if self._stream is None else int(self._stream.cuda_stream)
        self._held: Dict[int, Any] = {}

    def allocate(self, nbytes: int) -> int:
        """A tensor of bytes, kept until it is freed."""
        try:
            buffer = self._torch.empty(max(1, nbytes), dtype=self._torch.uint8, device=self._device)
        except RuntimeError as error:
            words = str(error).strip().splitlines()[0]
            if speaks_of_memory(words):
                raise memory_error("the GPU's memory is used up", words) from error
            raise EngineError("the GPU failed", seen=words, remedy="restart the device") from error
        self._held[int(buffer.data_ptr())] = buffer
        return int(buffer.data_ptr())

    def free(self, address: int) -> None:
        """Back to torch's own cache."""
        self._held.pop(address, None)

    def upload(self, address: int, values: np.ndarray) -> None:
        """Copied on the stream."""
        self._copy(self._held[address][: values.nbytes], self._bytes(values))

    def download(self, values: np.ndarray, address: int) -> None:
        """Copied on the stream."""
        self._copy(self._bytes(values), self._held[address][: values.nbytes])

    def synchronise(self) -> None:
        """Of the stream."""
        if self._stream is not None:
            try:
                self._stream.synchronize()
            except RuntimeError as error:
                raise EngineError("the GPU failed", seen=error, remedy="restart the device") from error

    def free_bytes(self) -> int:
        """torch.cuda.mem_get_info; of the system where memory is shared."""
        if self._stream is None:
            return _available()
        free = int(self._torch.cuda.mem_get_info()[0])
        return max(free, _available()) if TEGRA_RELEASE.exists() else free

    def device_name(self) -> str:
        """The first GPU."""
        if self._stream is None:
            return "cpu"
        major, minor = self._torch.cuda.get_device_capability()
        return f"{self._torch.cuda.get_device_name()} sm{major}{minor}"

    def _bytes(self, values: np.ndarray) -> Any:
        return self._torch.from_numpy(values.reshape(-1).view(np.uint8))

    def _copy(self, target: Any, source: Any) -> None:
        if self._stream is None:
            target.copy_(source)
            return
        with self._torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)


def find_memory() -> DeviceMemory:
    """Memory of the GPU here.

    Raises:
        EngineError: neither cuda-python nor torch reaches one; with both their reasons.

    """
    reasons: List[str] = []
    for name in CUDA_PYTHON:
        try:
            return CudaPythonMemory(importlib.import_module(name))
        except (ImportError, EngineError) as error:
            reasons.append(f"{name}: {error.seen if isinstance(error, EngineError) else error}")
    try:
        return TorchMemory(importlib.import_module("torch"))
    except (ImportError, EngineError) as error:
        reasons.append(f"torch: {error.seen if isinstance(error, EngineError) else error}")
    raise _no_gpu("; ".join(reasons))


def platform_name(memory: DeviceMemory) -> str:
    """The GPU and, on a Jetson, the system's release: what a plan and a timing cache belong to."""
    try:
        words = TEGRA_RELEASE.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return memory.device_name()
    release = words[1] if len(words) > 1 else "unknown"
    revision = words[4].rstrip(",") if len(words) > 4 else "0"
    return f"{memory.device_name()} L4T-{release}.{revision}"


def _available() -> int:
    """Bytes that the system could still hand out."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return 0


def _no_gpu(why: Optional[str]) -> EngineError:
    return EngineError(
        "no GPU can be used here",
        seen=why,
        accepted="an NVIDIA GPU with its driver, and cuda-python or torch with CUDA",
        remedy="choose the kind onnxruntime, or see `fedclient doctor`",
    )
