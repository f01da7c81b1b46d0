"""Engine build in a child process of the lowest priority, which ends with a cancelled or dead caller.

The child (``builder``) does everything, one build at a time per store: it reads the ONNX, looks whether the
store has its engine, builds it otherwise. A killed child leaves a store as it was, and TensorRT's timing cache
shortens the next try.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Dict, Optional

from fedclient.worker.engines.store import EngineStore
from fedclient.worker.engines.stored import StoredEngine
from fedspect.errors import EngineError, InterruptedRunError, error_from

TICK = 1.0  # seconds between signs of life
LOOK = 0.1  # seconds between looks at the cancel event
GRACE = 2.0  # seconds for a cancelled build to save what it measured; then it is killed


@dataclass(frozen=True)
class BuildEvent:
    """Progress of a build: "starting", "waiting", "reading", "parsing", "building", "checking", "kept"."""

    phase: str
    seconds: float
    """Since the build was asked for."""
    fraction: Optional[float] = None
    """Done of this phase, 0 to 1: told by the runtime, or reckoned from the last build of the same part."""


Progress = Callable[[BuildEvent], None]


def build_engine(
    onnx_path: Path,
    store: EngineStore,
    *,
    kind: str = "onnxruntime",
    precision: str = "float32",
    max_batch: int = 8,
    progress: Optional[Progress] = None,
    cancel: Optional[threading.Event] = None,
    tensorrt_module: Optional[str] = None,
) -> StoredEngine:
    """Build an engine of an ONNX file, or find it in the store.

    ``max_batch`` is the largest batch of a TensorRT engine; ONNX Runtime takes any. ``cancel`` ends the build
    within seconds when it is set.

    Raises:
        EngineError: the ONNX cannot be used, or the engine cannot be built; the store is as it was.
        StorageError: it cannot be kept.
        InterruptedRunError: cancelled.

    """
    order = {
        "onnx": str(Path(onnx_path).absolute()),
        "store": str(store.folder.absolute()),
        "limit_bytes": store.limit_bytes,
        "kind": kind,
        "precision": precision,
        "max_batch": max_batch,
        "tensorrt_module": tensorrt_module,
    }
    with tempfile.TemporaryFile() as log:
        child = _start(log)
        try:
            return store.get(_follow(child, order, progress or (lambda event: None), cancel, log))
        finally:
            _end(child)


def _start(log: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-m", "fedclient.worker.engines.builder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


def _follow(
    child: subprocess.Popen[bytes],
    order: Dict[str, Any],
    progress: Progress,
    cancel: Optional[threading.Event],
    log: IO[bytes],
) -> str:
    """Send the order, pass on the child's events, return the engine's id."""
    assert child.stdin is not None and child.stdout is not None
    lines: queue.Queue[Optional[bytes]] = queue.Queue()
    threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(order).encode("utf-8") + b"\n")
        child.stdin.flush()  # and it stays open: its end tells the child that we are gone
    course = _Course(progress)
    asked = None
    while True:
        if asked is None and cancel is not None and cancel.is_set():
            asked = time.monotonic()
            with contextlib.suppress(OSError):
                child.stdin.write(b"cancel\n")
                child.stdin.flush()
        if asked is not None and time.monotonic() - asked > GRACE:
            raise InterruptedRunError("the build was cancelled", remedy="start it again at any time")
        try:
            line = lines.get(timeout=LOOK)
        except queue.Empty:
            course.tick()
            continue
        if line is None:
            raise _died(child, log)
        said = json.loads(line)
        if "engine" in said:
            return str(said["engine"])
        if "error" in said:
            raise error_from(said["error"], EngineError) or _died(child, log)
        course.told(said["phase"], said.get("fraction"), said.get("expected"))


class _Course:
    """Passes on the child's events, and a heartbeat each second where there is none."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begun = self._last = self._since = time.monotonic()
        self._phase, self._fraction, self._expected = "starting", None, None  # type: str, Any, Any
        self._pass_on()

    def told(self, phase: str, fraction: Optional[float], expected: Optional[float]) -> None:
        if phase != self._phase:
            self._since = time.monotonic()
        self._phase, self._fraction, self._expected = phase, fraction, expected
        self._pass_on()

    def tick(self) -> None:
        if time.monotonic() - self._last >= TICK:
            self._pass_on()

    def _pass_on(self) -> None:
        self._last = now = time.monotonic()
        share = self._fraction
        if share is None and self._expected:
            share = min(0.99, (now - self._since) / self._expected)
        self._progress(BuildEvent(self._phase, now - self._begun, share))


def _read(stream: IO[bytes], lines: queue.Queue[Optional[bytes]]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in stream:
            lines.put(line)
    lines.put(None)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and what it started, whether or not it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _died(child: subprocess.Popen[bytes], log: IO[bytes]) -> EngineError:
    code = child.wait()
    log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
    words = log.read().decode("utf-8", "replace").strip().splitlines()
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return EngineError(
        "the builder of an engine died",
        seen=" | ".join([how, *words[-3:]]),
        remedy="too little memory is the usual reason: free some, then build again; the line keeps its engine",
    )
