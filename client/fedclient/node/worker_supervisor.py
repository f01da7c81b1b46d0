"""Supervises the worker process; restarts it when its settings change.

The ClientApp sees it as its ``WorkerCalls``. Before a round is passed on, the yield policy is asked
(``fedclient.yield_policy``): while the plant is paused or outside its hours, headquarters gets the reason at once
and the worker is left alone. One call at a time; a round that comes while engines are built waits for that, as
long as headquarters' deadline for the round allows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedclient.node.node_status import NodeStatus
from fedclient.node.worker_client import WorkerClient
from fedclient.plant_settings import PlantSettings
from fedclient.yield_policy import YieldPolicy
from fedspect import files
from fedspect.errors import FedspectError, WorkerError, YieldedError
from fedspect.update.round_messages import RoundReply, RoundTask

SETTINGS_FILE = "worker.json"
MEBI = 1 << 20
REST_AFTER = 5.0  # seconds without a call, while training may not run anyway
LARGEST_READ = 192 << 20  # bytes of a message whose header is read for the status

logger = logging.getLogger("fedclient.node")


class WorkerSupervisor:
    """The worker of one plant; ``ensure_running`` before anything else."""

    def __init__(
        self,
        home: PlantHome,
        yield_policy: YieldPolicy,
        status: NodeStatus,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.home = home
        self.yield_policy = yield_policy
        self.status = status
        self._say = say
        self._link: WorkerClient | None = None
        self._agreed: object = None
        self._turn = threading.RLock()
        self._asked = time.monotonic()
        self._closed = False

    def prepare(self, python: str | None) -> None:
        """Start a worker before it is known what it will work for; ``ensure_running`` takes it if it fits.

        Its imports take as long as the node's, and so they go on beside each other.

        Raises:
            WorkerError: the interpreter cannot be started.

        """
        with self._turn:
            if self._link is None:
                self._link = self._client(python)
                self._link.start()
                self._agreed = (python, self.yield_policy.settings.device.silence)

    def ensure_running(self, membership: Membership) -> bool:
        """Have a trainer for what was agreed; whether it is another one than before.

        Raises:
            StorageError: its settings cannot be written.

        """
        content = worker_settings(self.home, membership, self.yield_policy.settings)
        process = (membership.worker_python, self.yield_policy.settings.device.silence)
        agreed = (*process, content)
        with self._turn:
            if self._link is not None and self._agreed == agreed:
                return False
            if self._link is not None and self._agreed != process:
                self._link.close()
                self._link = None
            files.write_json(self.home.folder / SETTINGS_FILE, content)
            self._link = self._link or self._client(membership.worker_python)
            self._agreed = agreed
            return True

    def _client(self, python: str | None) -> WorkerClient:
        return WorkerClient(
            self.home.folder / SETTINGS_FILE,
            self.home.folder / "worker.log",
            python=python,
            silence=self.yield_policy.settings.device.silence,
            on_progress=self.status.progress,
            on_restart=lambda why: self._say(f"the worker died and is started again: {why}"),
        )

    def inspect(self) -> dict[str, Any]:
        """The site report, and what the worker runs on; errors as ``WorkerClient.inspect``."""
        with self._turn:
            link = self._there()
            report = link.inspect()
            report["worker"] = link.about()
        self._done()
        return report

    def describe(self) -> bytes:
        """A ``PlantDescription`` as bytes."""
        with self._turn:
            answer = self._there().describe()
        self._done()
        return answer

    def work(self, task: bytes) -> bytes:
        """A ``RoundReply`` to a ``RoundTask``, both as bytes.

        Raises:
            YieldedError: training may not run now, or had to give way.
            WorkerError: there is no worker, even after it was started again.

        """
        blocker = self.yield_policy.schedule_blocker()
        if blocker is not None:
            raise blocker.error()
        with self._turn:
            link = self._there()
            _show_task(self.status, task)
            try:
                reply = link.work(task)
            except YieldedError as error:
                self._say(f"a round was given back: {error.what}")
                raise
            finally:
                self._done()
        _show_reply(self.status, reply)
        return reply

    def deploy(self, folder: str, number: int) -> bytes:
        """Let the worker build engines of a version and run the gate; its report as JSON.

        Raises:
            WorkerError: the worker died over it, or does not answer.

        """
        with self._turn:
            try:
                return self._there().deploy(folder, number)
            finally:
                self._done()

    def rest(self) -> None:
        """End an idle worker while training may not run: the line gets its memory."""
        link = self._link
        if link is None or link.pid is None or time.monotonic() - self._asked < REST_AFTER:
            return
        if self._turn.acquire(blocking=False):
            try:
                link.rest()
            finally:
                self._turn.release()

    def close(self) -> None:
        """End the worker; a call under way is abandoned."""
        self._closed = True
        if self._link is not None:
            self._link.close()

    def _there(self) -> WorkerClient:
        if self._link is None or self._closed:
            raise WorkerError("the plant is stopping" if self._closed else "there is no worker yet")
        return self._link

    def _done(self) -> None:
        self._asked = time.monotonic()
        self.status.put(work=None)


def worker_settings(home: PlantHome, membership: Membership, settings: PlantSettings) -> dict[str, Any]:
    """Content of ``worker.json``: what headquarters prescribes, and what this plant allows its worker to use."""
    prescribed, device, limit = membership.settings, settings.device, settings.training.memory_limit
    training = {
        **prescribed.get("training", {}),
        "device": device.device,
        "threads": device.threads,
        "cache_limit": device.cache * MEBI,
    }
    if limit:
        training["memory_limit"] = limit * MEBI // 4  # pictures and features; torch and network have the rest
    return {
        "plant": membership.plant,
        "classes": membership.classes,
        "aliases": membership.aliases,
        "data": membership.data,
        "base": str(home.base_folder(membership.base_hash)),
        "state": str(home.state),
        "cache": str(home.folder / "cache"),
        "training": training,
        "freeze_levels": prescribed.get("freeze_levels"),
        "bit_depth": settings.camera.bit_depth or None,
        "seed": prescribed.get("seed", 0),
        "closed_form": prescribed.get("closed_form", False),
    }


def _show_task(status: NodeStatus, message: bytes) -> None:
    """Put the round into the status, and that the node works on it; a task that cannot be read is refused by the
    worker.
    """
    try:
        task = RoundTask.from_bytes(message, LARGEST_READ)
    except FedspectError:
        return
    earlier = status.facts.get("round") or {}
    known = {key: earlier[key] for key in ("accuracy", "loss") if key in earlier}
    status.put(
        detail=f"on round {task.round} of {task.total_rounds}" if task.train else "on the closing evaluation",
        round={
            **known,
            "run": task.run_id,
            "round": task.round,
            "of": task.total_rounds,
            "trains": task.train,
            "version": task.version,
            "at": time.time(),
        },
    )


def _show_reply(status: NodeStatus, message: bytes) -> None:
    """Put into the status how good the received model was here, and how training went."""
    try:
        reply = RoundReply.from_bytes(message, LARGEST_READ)
    except FedspectError:
        return
    if reply.error is not None:
        status.problem("round", f"round {reply.round}: {reply.error.message}")
        return
    status.problem("round", None)
    found = dict(status.facts.get("round") or {})
    found["seconds"] = reply.seconds.get("total")
    if "accuracy" in reply.metrics:
        found["accuracy"] = reply.metrics["accuracy"]
    if reply.train_loss is not None:
        found["loss"] = reply.train_loss
    status.put(round=found)
