"""A stand-in for cuda-python's runtime module: buffers of this process's own memory, and a limit to them."""

# ruff: noqa: N801, N815 - the names are CUDA's

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace
from typing import Any, Dict, Tuple

LIMIT = 1 << 30
HELD: Dict[int, Any] = {}


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


OK = cudaError_t.cudaSuccess


def cudaStreamCreate() -> Tuple[Any, int]:
    return OK, 7


def cudaMalloc(size: int) -> Tuple[Any, int]:
    if sum(len(buffer) for buffer in HELD.values()) + size > LIMIT:
        return cudaError_t.cudaErrorMemoryAllocation, 0
    buffer = ctypes.create_string_buffer(size)
    HELD[ctypes.addressof(buffer)] = buffer
    return OK, ctypes.addressof(buffer)


def cudaFree(address: int) -> Tuple[Any]:
    return (OK if HELD.pop(address, None) is not None else cudaError_t.cudaErrorInvalidValue,)


def cudaMemcpyAsync(target: int, source: int, count: int, kind: Any, stream: Any) -> Tuple[Any]:
    device = target if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else source
    if stream != 7 or device not in HELD or count > len(HELD[device]):
        return (cudaError_t.cudaErrorInvalidValue,)
    ctypes.memmove(target, source, count)
    return (OK,)


def cudaStreamSynchronize(stream: Any) -> Tuple[Any]:
    return (OK,)


def cudaMemGetInfo() -> Tuple[Any, int, int]:
    return OK, LIMIT, LIMIT


def cudaGetDeviceProperties(device: int) -> Tuple[Any, Any]:
    return OK, SimpleNamespace(name=b"Xavier\0\0", major=7, minor=2)
