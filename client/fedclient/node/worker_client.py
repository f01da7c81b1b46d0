"""Worker client: starts the worker process, calls it over its socket, restarts it when it dies.

The worker runs on the device's own Python with torch; the node never imports it. Its socket lies in a
folder of its own that only this user may enter. A worker that dies in the middle of a round is started
again and asked again: it repeats the round from the state that it began it with. So is one that hangs: however
long its work takes, it gives a sign of life every few seconds, and one that gives none for ``silence`` is ended.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from fedclient.node.watchdog import Watchdog
from fedspect.errors import ConnectionLostError, WorkerError
from fedspect.files import turn_over
from fedspect.protocol.grpc_services import WORKER, Stub
from fedspect.protocol.limits import LARGEST_WORKER_MESSAGE, grpc_options
from fedspect.protocol.worker_pb2 import (
    AboutRequest,
    DeployRequest,
    DescribeRequest,
    InspectRequest,
    WorkRequest,
)

SOCKET = "worker.sock"
READY_WITHIN = 300.0  # seconds
LONGEST_PARENT = 80  # bytes of the path below which a socket is made
ABOUT_WITHIN = 600.0  # importing torch takes some time on a small or busy device
STOP_WITHIN = 5.0
LARGEST_LOG = 4 << 20  # bytes; then it is begun anew, and the one before stays beside it
MOST_STARTS = 3  # for one question
SILENCE = 300.0  # seconds
Progress = Callable[[str, int, int], None]


class WorkerClient:
    """A worker process and the connection to it; the ClientApp's ``WorkerCalls``."""

    def __init__(
        self,
        settings: Path,
        log: Path,
        *,
        python: str | None = None,
        silence: float = SILENCE,
        on_progress: Progress = lambda stage, done, total: None,
        on_restart: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._python = python or sys.executable
        self._silence = silence
        self._hung = False
        self._on_progress = on_progress
        self._on_restart = on_restart
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None
        self._closed = threading.Event()
        self._lock = threading.RLock()

    @property
    def pid(self) -> int | None:
        """The worker's process, ``None`` when there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the process without waiting for it, so that its imports are done when it is asked something.

        It reads its settings when it is asked, so they may be written later.

        Raises:
            WorkerError: the interpreter cannot be started, or the plant is stopping.

        """
        with self._lock:
            if self._closed.is_set():
                raise WorkerError("the plant is stopping")
            if self.pid is None:
                self._end()
                self._spawn()

    def about(self) -> dict[str, Any]:
        """The worker's software."""
        content = json.loads(self._ready().about(AboutRequest(), timeout=ABOUT_WITHIN).json)
        return content if isinstance(content, dict) else {}

    def inspect(self) -> dict[str, Any]:
        """The site report; checks all pictures the first time.

        Raises:
            DataError: the pictures cannot be used.
            WorkerError: there is no worker, even after it was started again.

        """
        content = json.loads(self._asked(lambda stub: stub.inspect(InspectRequest())))
        return content if isinstance(content, dict) else {}

    def describe(self) -> bytes:
        """A ``PlantDescription``; errors as ``inspect``."""
        return self._asked(lambda stub: stub.describe(DescribeRequest()))

    def work(self, task: bytes) -> bytes:
        """The ``RoundReply`` to a ``RoundTask``; errors as ``inspect``."""
        return self._asked(lambda stub: stub.work(WorkRequest(task=task)))

    def deploy(self, folder: str, number: int) -> bytes:
        """Build engines of the version in ``folder`` and run the gate; the report as JSON.

        A worker that dies over this is not asked again at once: what killed it would kill it again.
        """
        request = DeployRequest(json=json.dumps({"folder": folder, "number": number}))
        return self._asked(lambda stub: stub.deploy(request), most_starts=1)

    def rest(self) -> None:
        """End the worker until the next call; the caller knows that no call is under way."""
        with self._lock:
            self._end()

    def close(self) -> None:
        """End the worker; a call under way is abandoned."""
        self._closed.set()
        channel = self._channel
        if channel is not None:
            channel.close()
        with self._lock:
            self._end()

    # -- parts ---------------------------------------------------------------------------------------------

    def _asked(self, ask: Callable[[Stub], Iterator[Any]], most_starts: int = MOST_STARTS) -> bytes:
        """Call once; when the worker dies over it, start it again and repeat the call."""
        for start in range(1, most_starts + 1):
            try:
                return self._answer(ask(self._ready()))
            except (ConnectionLostError, ValueError) as error:  # ValueError: the channel was closed under it
                if self._closed.is_set():
                    raise WorkerError("the plant is stopping") from error
                if self._outlives_it():
                    raise WorkerError("the worker does not answer", seen=str(error)) from error
                why = self._last_words()
                with self._lock:
                    self._end()
                if start == most_starts:
                    raise WorkerError(
                        "the worker dies over its work",
                        seen=why,
                        remedy=f"see {self._log}; with little memory, a smaller batch helps",
                    ) from error
                self._on_restart(why)
        raise AssertionError("unreachable")

    def _answer(self, events: Iterator[Any]) -> bytes:
        with Watchdog(self._silence, self._end_hung) as watchdog:
            for event in events:
                watchdog.heard()
                kind = event.WhichOneof("kind")
                if kind == "reply":
                    return bytes(event.reply)
                if kind == "progress":
                    self._on_progress(event.progress.stage, event.progress.done, event.progress.total)
        raise WorkerError("the worker hung up without an answer", remedy=f"see {self._log}")

    def _end_hung(self) -> None:
        """Kill a worker without heartbeat; the waiting call notices, and starts another."""
        process = self._process
        if process is not None:
            self._hung = True
            process.kill()

    def _ready(self) -> Stub:
        with self._lock:
            try:
                self.start()
                if self._channel is None:
                    self._connect()
            except BaseException:
                self._end()  # nobody could speak to what is left of it
                raise
            assert self._channel is not None
            return Stub(self._channel, WORKER)

    def _spawn(self) -> None:
        self._hung = False
        self._folder = _socket_folder()
        path = self._folder / SOCKET
        command = [self._python, "-m", "fedclient.worker.service"]
        command += ["--settings", str(self._settings), "--socket", str(path)]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        turn_over(self._log)
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
        except OSError as error:
            raise WorkerError(
                "the worker cannot be started",
                seen=f"{self._python}: {error.strerror}",
                remedy="name the interpreter that has torch: fedclient join --worker-python PATH",
            ) from error

    def _connect(self) -> None:
        assert self._process is not None and self._folder is not None
        path = self._folder / SOCKET
        deadline = time.monotonic() + READY_WITHIN
        while not _listens(path):
            if self._process.poll() is not None:
                raise WorkerError(
                    "the worker ends at once",
                    seen=self._last_words(),
                    remedy="fedspect with its extra `worker` must be installed for that interpreter",
                )
            if time.monotonic() > deadline:
                raise WorkerError("the worker does not come up", seen=self._last_words())
            if self._closed.wait(0.05):
                raise WorkerError("the plant is stopping")
        self._channel = grpc.insecure_channel(f"unix:{path}", options=grpc_options(LARGEST_WORKER_MESSAGE))

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._channel = self._process = self._folder = None

    def _outlives_it(self) -> bool:
        """Whether the worker still runs although the call failed; a process that just died takes a moment."""
        try:
            if self._process is not None:
                self._process.wait(1.0)
            return False
        except subprocess.TimeoutExpired:
            return True

    def _last_words(self) -> str:
        if self._hung:
            return f"it gave no sign of life for {self._silence:.0f} s and was ended"
        code = None if self._process is None else self._process.poll()
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - 400))
                words = log.read().decode("utf-8", "replace").strip()
        except OSError:
            words = ""
        return f"exit {code}: {words}" if code is not None else words


def _socket_folder() -> Path:
    """A folder that only this user may enter, for a socket: its path has 107 bytes at most, and TMPDIR may be longer.

    Raises:
        WorkerError: none can be made.

    """
    tried = [tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp"]
    for parent in tried:
        if parent and len(os.fsencode(parent)) <= LONGEST_PARENT and os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="fedspect-", dir=parent))
    raise WorkerError(
        "there is no folder for the worker's socket",
        seen=", ".join(filter(None, tried)),
        accepted=f"one that can be written, with a path of up to {LONGEST_PARENT} bytes",
        remedy="set TMPDIR to such a folder",
    )


def _listens(path: Path) -> bool:
    """Whether a unix socket accepts connections; its file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
