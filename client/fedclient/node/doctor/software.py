"""Software checks: interpreters and libraries of the node, and of the worker in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from fedclient.node.doctor.checks import GIB, Check, ok, warning
from fedspect.console import version
from fedspect.errors import WorkerError

NODE_PYTHON = (3, 10)
WORKER_PYTHON = (3, 8)
FLOWER = "1.30."
LEAST = {"torch": (2, 1), "torchvision": (0, 16), "numpy": (1, 24), "grpc": (1, 60)}
ASK_WITHIN = 180.0  # seconds; importing torch takes some on a small or busy device
INSTALL_WORKER = (
    "install fedspect with its extra `worker` for that interpreter, or name another: --worker-python"
)

_ASK = """
import json, platform
found = {"python": platform.python_version(), "problems": []}
names = ("fedspect", "fedclient", "torch", "torchvision", "numpy", "grpc", "onnxruntime", "tensorrt")
for name in names:
    try:
        found[name] = getattr(__import__(name), "__version__", "installed")
    except Exception as error:
        found[name] = None
        found["problems"].append("%s: %s" % (name, error))
if found["torch"]:
    import torch
    found["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        found["gpu"] = [facts.name, facts.total_memory, "%d.%d" % (facts.major, facts.minor)]
print(json.dumps(found))
"""


def node() -> Iterator[Check]:
    """Software of the node."""
    names = ("flwr", "grpcio", "cryptography", "numpy", "pydantic")
    versions = {name: importlib.metadata.version(name) for name in names}
    text = f"Python {platform.python_version()}, Fedspect {version()}, "
    text += ", ".join(f"{name} {found}" for name, found in versions.items())
    if sys.version_info < NODE_PYTHON:
        yield warning("node", text, "the node needs Python 3.10 or newer")
    elif not versions["flwr"].startswith(FLOWER):
        yield warning("node", text, f"install flwr {FLOWER}x: the plant speaks its protocol")
    else:
        yield ok("node", text)


def worker(python: str, *, jetson: bool = False) -> Iterator[Check]:
    """Software of the worker, its GPU, and what can run the line's engines.

    Raises:
        WorkerError: the interpreter does not answer, or lacks what it needs.

    """
    found = _ask(python)
    shown = ", ".join(f"{name} {found.get(name)}" for name in LEAST if found.get(name))
    text = f"{python}: Python {found['python']}, {shown or 'no torch'}"
    if not found.get("torch") or not found.get("fedclient"):
        raise WorkerError(
            "the worker's interpreter lacks what it needs",
            seen=f"{text}; {'; '.join(found.get('problems', []))}",
            remedy=INSTALL_WORKER,
        )
    old = [name for name, least in LEAST.items() if found.get(name) and _numbers(found[name]) < least]
    if _numbers(found["python"]) < WORKER_PYTHON or old:
        yield warning("worker", text, f"too old: {', '.join(old) or 'Python'}; {INSTALL_WORKER}")
    else:
        yield ok("worker", text)
    yield from _gpu(found, jetson=jetson)
    kinds = [f"{kind} {found[kind]}" for kind in ("tensorrt", "onnxruntime") if found.get(kind)]
    if kinds:
        yield ok("engines", ", ".join(kinds))
    else:
        yield warning(
            "engines", "neither TensorRT nor ONNX Runtime", "the line cannot run a model: " + INSTALL_WORKER
        )


def _gpu(found: dict[str, Any], *, jetson: bool) -> Iterator[Check]:
    if found.get("gpu"):
        name, memory, capability = found["gpu"]
        yield ok(
            "GPU", f"{name}, {int(memory) / GIB:.1f} GiB, compute {capability}, CUDA {found.get('cuda')}"
        )
    elif jetson:
        yield warning(
            "GPU",
            f"torch {found['torch']} does not see it",
            "install NVIDIA's own torch for this JetPack: the one from the registry has no code for this GPU",
        )
    elif found.get("cuda"):
        yield warning(
            "GPU", f"none that torch {found['torch']} can use", "see `nvidia-smi`; training works without"
        )
    else:
        yield warning("GPU", "none", "training works on the processor, more slowly")


def _ask(python: str) -> dict[str, Any]:
    try:
        asked = subprocess.run(
            [python, "-c", _ASK], capture_output=True, text=True, timeout=ASK_WITHIN, check=False
        )
        found = json.loads(asked.stdout.strip().splitlines()[-1])
        if not isinstance(found, dict) or "python" not in found:
            raise ValueError("it answers something else")
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise WorkerError(
            "the worker's interpreter does not answer",
            seen=f"{python}: {error}",
            remedy="name the Python that has torch: fedclient join --worker-python PATH",
        ) from error
    return found


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version such as ``2.1.0a0+41361538.nv23.06``; what has none is not old."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", str(text))
    return (1 << 20,) if found is None else tuple(int(number) for number in found.groups() if number)
