"""Requests wait here for the engine: together where they come together, refused where too many wait.

One thread takes requests of one model from the queue, as many as the batch may hold, and runs them. It waits
for more only while other requests are between lease and queue, so a lone client never waits. A swap drops no
request and answers none with half of each model (``leasing``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import Deque, Iterator, List, Optional

import numpy as np

from fedclient.worker.engines.model import LineAnswer
from fedclient.worker.line.decision_policy import DecisionPolicy
from fedclient.worker.line.serving.model_leases import (
    BusyError,
    Job,
    Lease,
    LoadedModel,
    NotReadyError,
    ServedModel,
)
from fedclient.worker.line.settings import ServingSettings
from fedspect.errors import EngineError, FedspectError

logger = logging.getLogger("fedclient.line")


class DynamicBatcher:
    """The current model and the queue before it. Every method may be called from any thread."""

    def __init__(self, settings: ServingSettings) -> None:
        self.settings = settings
        self.batches = 0
        self.pictures = 0
        self.failures = 0
        """Answers that the engine failed to give since it last gave one, or was opened."""
        self._condition = threading.Condition()
        self._current: Optional[LoadedModel] = None
        self._policy: Optional[DecisionPolicy] = None
        self._jobs: Deque[Job] = deque()
        self._waiting = 0  # pictures in the queue
        self._arriving = 0  # requests that hold a lease and have not queued yet
        self._per_picture = 0.0  # seconds, a running mean
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="line", daemon=True)
        self._thread.start()

    # -- the model -----------------------------------------------------------------------------------------

    @property
    def current(self) -> Optional[ServedModel]:
        """The model that the next request gets."""
        held = self._current
        return None if held is None else held.model

    @property
    def waiting(self) -> int:
        """Pictures in the queue."""
        return self._waiting

    def replace(self, model: ServedModel, policy: DecisionPolicy) -> None:
        """Answer with this model from the next request on; the old one is closed after its last request."""
        with self._condition:
            old, self._current, self._policy = self._current, LoadedModel(model), policy
            self.failures = 0
        self._retire(old)

    def replace_policy(self, policy: DecisionPolicy) -> None:
        """Use another decision policy from the next request on."""
        with self._condition:
            self._policy = policy

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """The current model for one request.

        Raises:
            NotReadyError: there is none.

        """
        with self._condition:
            held, policy = self._current, self._policy
            if self._closed or held is None or policy is None:
                raise NotReadyError("the line has no engine yet", remedy="see `fedclient engines list`")
            held.users += 1
            self._arriving += 1
        lease = Lease(held, policy)
        try:
            yield lease
        finally:
            with self._condition:
                held.users -= 1
                if not lease.queued:
                    self._arriving -= 1
                    self._condition.notify_all()
                close = held.retired and held.users == 0
            if close:
                _close(held)

    def _retire(self, held: Optional[LoadedModel]) -> None:
        if held is None:
            return
        with self._condition:
            held.retired = True
            close = held.users == 0
        if close:
            _close(held)

    # -- requests ------------------------------------------------------------------------------------------

    def submit(self, lease: Lease, pixels: np.ndarray) -> Job:
        """Queue pictures uint8 (N, C, S, S) as the lease's model takes them; the answer comes with ``done``.

        Raises:
            BusyError: too many wait already; nothing was queued.
            NotReadyError: the line is closing.

        """
        job = Job(lease, pixels)
        with self._condition:
            if self._closed:
                raise NotReadyError("the line is ending")
            if self._waiting and self._waiting + len(pixels) > self.settings.waiting_pictures:
                raise BusyError(
                    "too many pictures wait for an answer",
                    seen=self._waiting,
                    accepted=f"up to {self.settings.waiting_pictures}",
                    remedy="ask again in a moment, or send fewer pictures at a time",
                )
            if not lease.queued:
                lease.queued = True
                self._arriving -= 1
            self._jobs.append(job)
            self._waiting += len(pixels)
            self._condition.notify_all()
        return job

    def abandon(self, job: Job) -> None:
        """Nobody waits for the answer any more."""
        job.abandoned = True

    def ask(self, lease: Lease, pixels: np.ndarray, *, timeout: Optional[float] = None) -> Job:
        """Queue pictures and wait for their answer.

        Raises:
            BusyError, NotReadyError: as ``submit``; also when the answer does not come in time.
            EngineError: the engine failed.

        """
        job = self.submit(lease, pixels)
        if not job.done.wait(timeout):
            self.abandon(job)
            raise BusyError("the answer did not come in time", seen=f"{timeout:.1f} seconds")
        if job.error is not None:
            raise job.error
        return job

    def close(self) -> None:
        """Answer what waits, then end; requests that come later are refused."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()
        with self._condition:
            old, self._current = self._current, None
        self._retire(old)

    # -- the thread that runs the engine -------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            jobs = self._take()
            if not jobs:
                return
            try:
                self._run([job for job in jobs if not job.abandoned])
            except Exception as error:  # never let the line's only thread die
                logger.error("a defect while answering", exc_info=error)
                self.failures += 1
                for job in jobs:
                    job.error = job.error or EngineError("the line failed", seen=type(error).__name__)
            finally:
                for job in jobs:
                    job.done.set()

    def _take(self) -> List[Job]:
        """The next jobs of one model, up to a batch; none when the line is closed and nothing waits."""
        with self._condition:
            while not self._jobs:
                if self._closed:
                    return []
                self._condition.wait()
            taken = [self._next()]
            count, most = len(taken[0].pixels), self._most()
            until = time.perf_counter() + self.settings.gather_ms / 1000
            while count < most:
                if self._jobs:
                    following = self._jobs[0]
                    if following.lease.held is not taken[0].lease.held:
                        break
                    if count + len(following.pixels) > most:
                        break
                    count += len(following.pixels)
                    taken.append(self._next())
                    continue
                left = until - time.perf_counter()
                if left <= 0 or not self._arriving or self._closed:
                    break
                self._condition.wait(left)
            return taken

    def _next(self) -> Job:
        job = self._jobs.popleft()
        self._waiting -= len(job.pixels)
        return job

    def _most(self) -> int:
        """Pictures in a batch, so that it ends within the latency limit."""
        most = self.settings.most_pictures
        if self._per_picture > 0:
            most = min(most, int(self.settings.latency_ms / 1000 / self._per_picture))
        return max(1, most)

    def _run(self, jobs: List[Job]) -> None:
        if not jobs:
            return
        model = jobs[0].lease.model
        pixels = jobs[0].pixels if len(jobs) == 1 else np.concatenate([job.pixels for job in jobs])
        started = time.perf_counter()
        try:
            answer = model.answer(pixels)
        except FedspectError as error:
            if len(jobs) > 1:  # a batch may be too much for a device that answers one by one
                logger.warning("a batch of %d failed, answering one by one: %s", len(pixels), error)
                for job in jobs:
                    self._run([job])
                return
            jobs[0].error = error
            if jobs[0].lease.held is self._current:
                self.failures += 1
            return
        ended = time.perf_counter()
        self._count(len(pixels), ended - started)
        place = 0
        for job in jobs:
            job.started_at, job.ended_at = started, ended
            part = slice(place, place + len(job.pixels))
            job.answer = LineAnswer(
                answer.logits[part],
                answer.probabilities[part],
                answer.features[part],
                None if answer.unlikeness is None else answer.unlikeness[part],
            )
            place += len(job.pixels)

    def _count(self, pictures: int, seconds: float) -> None:
        each = seconds / pictures
        self._per_picture = each if not self._per_picture else 0.9 * self._per_picture + 0.1 * each
        self.batches += 1
        self.pictures += pictures
        self.failures = 0


def _close(held: LoadedModel) -> None:
    try:
        held.model.close()
    except Exception as error:
        logger.error("closing version %s failed", held.model.number, exc_info=error)
