"""Opening a stored engine, after its file was checked against its sidecar."""

from __future__ import annotations

from fedclient.worker.engines.interface import Engine, TensorFacts
from fedclient.worker.engines.kinds import engine_kind
from fedclient.worker.engines.stored import StoredEngine
from fedspect.errors import DamagedFileError, EngineError


def open_engine(stored: StoredEngine, *, threads: int = 1) -> Engine:
    """Open an engine; ``threads`` of its own where it runs on the CPU.

    Raises:
        DamagedFileError: its file or sidecar is not what was built.
        EngineError: the runtime is missing, of another version or does not take it.

    """
    stored.check()
    try:
        inputs = TensorFacts.from_dict(stored.sidecar["inputs"])
        outputs = TensorFacts.from_dict(stored.sidecar["outputs"])
        metadata = {str(key): str(value) for key, value in stored.sidecar["metadata"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFileError(
            "an engine's sidecar cannot be read",
            seen=f"{stored.folder}: {error}",
            remedy="build it again with `fedclient engines build`",
        ) from error
    try:
        return engine_kind(stored.key.kind).open(
            stored, inputs=inputs, outputs=outputs, metadata=metadata, threads=threads
        )
    except ImportError as error:
        raise EngineError(
            "the runtime of an engine is not installed",
            seen=f"{stored.key.kind}: {error}",
            remedy="install it for the worker's Python, or activate an engine of another kind",
        ) from error
