"""Writes ``tensorrt_names.json``: which names of which class each recorded TensorRT version has.

    FEDSPECT_REFERENCE=... python tests/fedclient/worker/engines/record_tensorrt_names.py

The reference (``tensorrt_api.json``) was dumped from the real bindings. Kept here are the classes that an
adapter could touch; a name maps to "*" where all versions have it, else to the versions that do.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict

PATH = Path(__file__).with_name("tensorrt_names.json")
CLASSES = [
    "Builder", "BuilderFlag", "DataType", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IHostMemory",
    "ILayer", "ILogger", "INetworkDefinition", "IOptimizationProfile", "IProgressMonitor", "ITensor",
    "ITimingCache", "LayerType", "Logger", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser",
    "ParserError", "Runtime", "TensorIOMode",
]  # fmt: skip


def recorded(reference: Path) -> Dict[str, Any]:
    """The names of the reference file in the short form."""
    api = json.loads((reference / "tensorrt_api.json").read_text(encoding="utf-8"))
    versions = sorted(api)
    names: Dict[str, Any] = {"versions": versions}
    for kind in CLASSES:
        every = sorted({name for version in versions for name in api[version].get(kind, {})} - {"__init__"})
        having = {name: [v for v in versions if name in api[v].get(kind, {})] for name in every}
        names[kind] = {name: "*" if found == versions else found for name, found in having.items()}
    return names


def main() -> None:
    """Write the file, a line a class."""
    names = recorded(Path(os.environ["FEDSPECT_REFERENCE"]))
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in names.items()]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
