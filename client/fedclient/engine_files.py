"""Integrity of built engines on disk, without opening one.

`fedclient engines rollback` must not wait for numpy, and the node holds no engine: both read files only.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Iterable, Optional

from fedspect.errors import DamagedFileError
from fedspect.files import read_json

SIDECAR = "engine.json"
FILES = {"onnxruntime": "engine.onnx", "tensorrt": "engine.plan"}


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


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
        file = folder / FILES[sidecar["key"]["kind"]]
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
