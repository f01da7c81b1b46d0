"""Worker process: ``worker.proto`` over a unix socket that only its user may open.

The node starts it with the device's own Python (3.8 on a Jetson Xavier NX) and starts it again when it
dies. It stays between rounds, so that libraries, network and cached features stay warm. One piece of work
at a time; who asks while it works is told so. A caller that hangs up ends the work at the next batch.

    python -m fedclient.worker.service --settings worker.json --socket /run/.../worker.sock
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import os
import platform
import queue
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional

import grpc

from fedclient.plant_settings import SettingsFile
from fedclient.worker.settings import WorkerSettings
from fedclient.worker.training.yielding import TaskYielded, polite
from fedclient.yield_policy import YieldPolicy
from fedspect.errors import FedspectError, WorkerError
from fedspect.graceful_shutdown import exit_with_parent, stop_event
from fedspect.protocol.grpc_services import WORKER, handler
from fedspect.protocol.limits import LARGEST_WORKER_MESSAGE, grpc_options
from fedspect.protocol.worker_pb2 import (
    AboutReply,
    AboutRequest,
    DeployRequest,
    DescribeRequest,
    InspectRequest,
    Progress,
    WorkEvent,
    WorkRequest,
)

PROGRESS_EVERY = 0.2  # seconds
SIGN_OF_LIFE = 10.0  # seconds without progress after which the node hears that this process lives
THREADS = 4

logger = logging.getLogger("fedclient.worker")

Report = Callable[[str, int, int], None]
Piece = Callable[[Report], bytes]
"""A piece of work: it is given what to tell its progress to, and answers bytes."""


class HungUp(BaseException):
    """Nobody listens any more; raised where the work tells its progress."""


class WorkerService:
    """The methods of ``worker.proto``. Pictures are checked and the network is built at the first need."""

    def __init__(self, settings_path: Path, leave: Callable[[], None] = lambda: None) -> None:
        self._settings_path = settings_path
        self._leave = leave
        self._busy = threading.Lock()
        self._site: Any = None
        self._worker: Any = None
        self._loading = threading.Thread(target=_load, name="imports", daemon=True)
        self._loading.start()

    def about(self, request: AboutRequest, context: grpc.ServicerContext) -> AboutReply:
        """The worker's software."""
        self._loading.join()
        return AboutReply(json=json.dumps(about()))

    def inspect(self, request: InspectRequest, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        """The site report."""

        def piece(report: Report) -> bytes:
            return json.dumps(self._found(report).report()).encode("utf-8")

        return self._streamed(piece, context)

    def describe(self, request: DescribeRequest, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        """The plant's description for a run."""

        def piece(report: Report) -> bytes:
            description: bytes = self._built(report).describe().to_bytes()
            return description

        return self._streamed(piece, context)

    def work(self, request: WorkRequest, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        """A round's work; between any two batches it yields to the line."""

        def piece(report: Report) -> bytes:
            reporting = polite(YieldPolicy(self._settings().home), report)
            reporting("begins", 0, 0)
            reply: bytes = self._built(report).work_bytes(
                request.task, lambda event: reporting(event.stage, event.done, event.total)
            )
            return reply

        return self._streamed(piece, context)

    def deploy(self, request: DeployRequest, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        """Engines of a published version: built, taken through the gate, activated."""

        def piece(report: Report) -> bytes:
            from fedclient.worker.gate.pipeline import Deployer

            asked = json.loads(request.json)
            deployer = Deployer(self._settings(), lambda: self._found(report))
            became = deployer.deploy(Path(asked["folder"]), number=asked.get("number"), report=report)
            return became.model_dump_json().encode("utf-8")

        return self._streamed(piece, context)

    # -- parts ---------------------------------------------------------------------------------------------

    def _settings(self) -> WorkerSettings:
        return WorkerSettings.read(self._settings_path)

    def _found(self, report: Report) -> Any:
        if self._site is None:
            from fedclient.worker.training.setup import Site

            self._site = Site(self._settings(), lambda done, total: report("pictures", done, total))
        return self._site

    def _built(self, report: Report) -> Any:
        if self._worker is None:
            self._worker = self._found(report).worker()
        return self._worker

    def _streamed(self, piece: Piece, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        """Do a piece of work in a thread of its own and hand out what it tells."""
        if not self._busy.acquire(blocking=False):
            raise WorkerError("the worker is at work already", remedy="wait until it has answered")
        events: queue.Queue[Any] = queue.Queue()
        told = [0.0]

        def report(stage: str, done: int, total: int) -> None:
            if not context.is_active():
                raise HungUp
            now = time.monotonic()
            if now - told[0] >= PROGRESS_EVERY or done >= total:
                told[0] = now
                progress = Progress(stage=stage, done=max(0, int(done)), total=max(0, int(total)))
                events.put(WorkEvent(progress=progress))

        def run() -> None:
            self._loading.join()  # two threads that import the same packages may find half of them
            try:
                events.put(WorkEvent(reply=piece(report)))
            except HungUp:
                logger.warning("nobody waits for the answer any more")
                events.put(None)
            except TaskYielded as given:
                events.put(given.error)
                if given.memory:
                    self._leave()  # only a new process gives all of it back
            except Exception as error:
                events.put(error)
            except BaseException as error:
                events.put(WorkerError("the worker ended its work", seen=type(error).__name__))
            finally:
                self._busy.release()

        threading.Thread(target=run, name="work", daemon=True).start()
        while True:
            try:
                event = events.get(timeout=SIGN_OF_LIFE)
            except queue.Empty:
                yield WorkEvent()  # from this thread, however long the work's own is busy with one step
                continue
            if isinstance(event, FedspectError):
                raise event
            if isinstance(event, Exception):
                logger.error("a defect", exc_info=event)
                raise WorkerError("the worker failed", seen=f"{type(event).__name__}: {event}"[:500])
            if event is None:
                return
            yield event
            if event.WhichOneof("kind") == "reply":
                return


def _load() -> None:
    """Import torch and the training while the socket answers already, and the node still asks headquarters."""
    with contextlib.suppress(ImportError):  # it is said where the first piece of work needs them
        importlib.import_module("fedclient.worker.training.setup")


def about() -> Dict[str, Any]:
    """Interpreter, libraries and device, for `fedclient doctor`."""
    found: Dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "pid": os.getpid(),
    }
    try:
        import torch

        found["torch"] = torch.__version__
        found["cuda"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    except ImportError as error:
        found["torch"], found["problem"] = None, str(error)
    return found


def serve(settings: Path, socket: Path, stop: threading.Event) -> None:
    """Answer on the socket until told to stop.

    Raises:
        WorkerError: the socket cannot be made.

    """
    server = grpc.server(ThreadPoolExecutor(THREADS), options=grpc_options(LARGEST_WORKER_MESSAGE))
    server.add_generic_rpc_handlers((handler(WORKER, WorkerService(settings, leave=stop.set)),))
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{socket}")
    except RuntimeError as error:
        raise WorkerError("the worker's socket cannot be made", seen=socket) from error
    finally:
        os.umask(before)
    server.start()
    stop.wait()
    server.stop(0.5).wait()


def _step_back(settings: Path) -> None:
    """Lower this process's priority, as the plant's settings say."""
    os.nice(
        SettingsFile(settings.parent).current().device.nice
    )  # the node may not have written ``settings`` yet


def main(arguments: Optional[list[str]] = None) -> int:
    """Run the worker's process."""
    parser = argparse.ArgumentParser(description="The worker of a plant; started by its node.")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _step_back(given.settings)  # before there are threads: each has a priority of its own
    stop = stop_event(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the node's to answer
    exit_with_parent(os.getppid())
    try:
        serve(given.settings, given.socket, stop)
    except FedspectError as error:
        logger.error("%s", error)
        return error.exit_code
    # Work under way is in a daemon thread; what it has written is whole.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
