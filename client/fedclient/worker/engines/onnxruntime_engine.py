"""ONNX Runtime on the CPU: the engine that runs everywhere."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Mapping, Optional

import numpy as np
import onnxruntime

from fedclient.worker.engines.interface import Engine, TensorFacts
from fedspect.errors import EngineError

QUIET = 3  # errors only; warnings of the runtime are about graphs, not about us


class OnnxRuntimeEngine(Engine):
    """One session with its own threads; runs of several threads go on side by side.

    Raises:
        EngineError: ONNX Runtime does not take the file, or its edges are not those that the sidecar says.

    """

    kind = "onnxruntime"
    precision = "float32"

    def __init__(
        self,
        file: Path,
        *,
        inputs: TensorFacts,
        outputs: TensorFacts,
        metadata: Mapping[str, str],
        threads: int = 1,
    ) -> None:
        self.inputs, self.outputs, self.metadata = inputs, outputs, metadata
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = QUIET
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no class below this one
            raise _failed("ONNX Runtime does not open an engine", error, file) from error
        seen = [edge.name for edge in (*session.get_inputs(), *session.get_outputs())]
        if seen != [inputs.name, outputs.name]:
            raise EngineError(
                "an engine has other inputs and outputs than its sidecar says",
                seen=", ".join(seen),
                accepted=f"{inputs.name}, {outputs.name}",
                remedy="build it again",
            )
        self._session: Optional[Any] = session
        self._lock = threading.Lock()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Answer a batch; errors as ``Engine.run``."""
        with self._lock:
            session = self._session
        if session is None:
            raise EngineError("the engine is closed", remedy="open it again")
        self.inputs.check(batch)
        try:
            return np.asarray(session.run([self.outputs.name], {self.inputs.name: batch})[0])
        except Exception as error:  # as above
            raise _failed("ONNX Runtime failed at a batch", error, None) from error

    def close(self) -> None:
        """Let go of the session; a run that has begun still ends."""
        with self._lock:
            self._session = None


def _failed(what: str, error: Exception, file: Optional[Path]) -> EngineError:
    words = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    seen = words if file is None else f"{file}: {words}"
    return EngineError(what, seen=seen, remedy="build the engine again; if that fails, send this line")
