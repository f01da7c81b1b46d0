"""Stored engine: the key by which it is found, and the sidecar that describes it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Mapping

from fedclient.engine_files import FILES, OTHER_FILE, SIDECAR
from fedspect.errors import DamagedFileError
from fedspect.files import file_hash, read_json

FORMAT = 1


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built from, and what it was built for. Any difference is another engine."""

    onnx_hash: str
    """The deploy graph's content hash: what it computes, whatever the version is called."""
    kind: str
    runtime_version: str
    device: str
    precision: str
    shapes: str

    @property
    def name(self) -> str:
        """A name for a folder; the same key has the same name."""
        content = json.dumps(asdict(self), sort_keys=True).encode("utf-8")
        digest = hashlib.sha256(content).hexdigest()
        return f"{self.kind}-{self.precision}-{self.onnx_hash[:12]}-{digest[:12]}"


@dataclass(frozen=True)
class StoredEngine:
    """An engine in the store. ``sidecar``: part, version, classes, base_hash, input_size, normalisation,
    metadata (all the deploy graph says), inputs, outputs, built_at, build_seconds, bytes, sha256 and more.
    """

    key: EngineKey
    folder: Path
    file: Path
    sidecar: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Its name in the store, which deployments keep."""
        return self.folder.name

    def check(self) -> None:
        """See that the file is what was built; raises ``DamagedFileError``."""
        try:
            found = file_hash(self.file)
        except OSError as error:
            raise _damaged(self.file, error.strerror or str(error)) from error
        if found != self.sidecar["sha256"]:
            raise _damaged(
                self.file, f"its hash is {found[:12]}, {str(self.sidecar['sha256'])[:12]} was built"
            )


def read_engine(folder: Path) -> StoredEngine:
    """The engine in a folder, by its sidecar; its file is not read.

    Raises:
        FileNotFoundError: there is no such folder.
        DamagedFileError: the sidecar is not what was written.

    """
    if not folder.is_dir():
        raise FileNotFoundError(str(folder))
    path = folder / SIDECAR
    try:
        content = read_json(path)
        key = EngineKey(**{field.name: str(content["key"][field.name]) for field in fields(EngineKey)})
        stored = StoredEngine(key, folder, folder / FILES.get(key.kind, OTHER_FILE), content)
        for name in ("sha256", "bytes", "metadata", "inputs", "outputs"):
            content[name]
    except FileNotFoundError as error:
        raise _damaged(path, "it is missing") from error
    except (KeyError, TypeError) as error:
        raise _damaged(path, f"it lacks {error}") from error
    if content.get("format") != FORMAT or key.name != folder.name:
        raise _damaged(path, "it is of another engine or another format")
    return stored


def _damaged(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError(
        "an engine is not what was built",
        seen=f"{path}: {why}",
        remedy="build it again with `fedclient engines build`; the line keeps what it runs until then",
    )
