"""Integrity of built engines on disk, without opening one.

`fedclient engines rollback` must not wait for numpy, and the node holds no engine: both read files only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Iterable, Optional

from fedspect.errors import DamagedFileError
from fedspect.files import file_hash, read_json

SIDECAR = "engine.json"
FILES = {"onnxruntime": "engine.onnx", "tensorrt": "engine.plan"}
GROUP = "fedspect.engines"
"""The entry points of those kinds."""
OTHER_FILE = "engine.bin"
"""Of the kinds that other packages add."""


def fault_of(store: Path, engines: Iterable[str], *, thorough: bool = True) -> Optional[str]:
    """Why one of these engines is not what was built; None where all are.

    Sizes are compared and, if ``thorough``, hashes: a few dozen megabytes are read.
    """
    for engine in engines:
        why = _fault(store / engine, thorough)
        if why is not None:
            return f"{engine} {why}"
    return None


def line_fault(home: Path) -> Optional[str]:
    """Why the line of a plant's home could not open its deployment; None where it could, or has none yet."""
    deployments = home / "deployments"
    try:
        current = read_json(deployments / "current.json")["current"]
    except FileNotFoundError:
        return None
    except (OSError, DamagedFileError, KeyError, TypeError) as error:
        return f"current.json cannot be read: {type(error).__name__}"
    try:
        engines = read_json(deployments / "records" / f"{current}.json")["engines"].values()
    except (OSError, DamagedFileError, KeyError, TypeError, AttributeError) as error:
        return f"the record of {current} cannot be read: {type(error).__name__}"
    return fault_of(home / "engines", engines)


def _fault(folder: Path, thorough: bool) -> Optional[str]:
    try:
        sidecar = read_json(folder / SIDECAR)
        file = folder / FILES.get(str(sidecar["key"]["kind"]), OTHER_FILE)
        size = file.stat().st_size
        if size != sidecar["bytes"]:
            return f"is damaged: {size} bytes, {sidecar['bytes']} were built"
        if thorough and file_hash(file) != sidecar["sha256"]:
            return "is damaged: its content is not what was built"
    except FileNotFoundError:
        return "is gone"
    except (OSError, DamagedFileError, KeyError, TypeError) as error:
        return f"cannot be read: {type(error).__name__}"
    return None
