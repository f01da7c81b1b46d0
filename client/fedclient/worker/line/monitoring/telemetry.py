"""Telemetry beside the answers, without delaying them: counters, the review queue, drift detection.

Counting is done at once; the rest waits in a short queue for a thread of its own. When the disk is slower than the
line, pictures for review are lost and counted as lost: the answers matter more.
"""

from __future__ import annotations

import functools
import logging
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple, Union

import numpy as np

from fedclient.worker.deployments import Deployment
from fedclient.worker.line.decision_policy import ASK, Verdict
from fedclient.worker.line.monitoring.drift import DriftWatch
from fedclient.worker.line.monitoring.metrics import Metrics
from fedclient.worker.line.monitoring.reference_statistics import batch_statistics
from fedclient.worker.line.review.review_heat_maps import HeatMaps
from fedclient.worker.line.review.review_queue import ReviewQueue
from fedclient.worker.line.serving.model_leases import Job, ServedModel
from fedclient.worker.line.settings import DriftSettings
from fedspect.errors import FedspectError

MOST_WAITING = 64  # requests
ASK_AGAIN = 30.0  # seconds, whether another process still watches for drift
LARGEST_WAITING = 64 << 20  # bytes of pictures for review in the queue

logger = logging.getLogger("fedclient.line")

Source = Union[bytes, np.ndarray]


@dataclass
class Counts:
    """Counters since the process began."""

    requests: int = 0
    failures: int = 0
    seconds: float = 0.0
    queue_seconds: float = 0.0
    engine_seconds: float = 0.0
    last_at: float = 0.0
    review_lost: int = 0


@dataclass
class _Done:
    model: ServedModel
    job: Job
    review: List[Tuple[int, Source, Verdict]]
    bytes: int


class Telemetry:
    """Called for every request by the threads that answer."""

    def __init__(
        self,
        metrics: Optional[Metrics] = None,
        review: Optional[ReviewQueue] = None,
        drift: Callable[[], Optional[DriftWatch]] = lambda: None,
        heat_maps: Optional[HeatMaps] = None,
    ) -> None:
        """``drift`` gives the watch for drift; ``None`` while another process has it: it is tried again."""
        self.metrics = metrics or Metrics()
        self.counts = Counts()
        self.review = review
        self.heat_maps = heat_maps
        self.drift: Optional[DriftWatch] = None
        self._drift_of = drift
        self._turned_to: Optional[Tuple[ServedModel, str, Path]] = None
        self._again_at = 0.0
        self._lock = threading.Lock()
        self._bytes = 0
        self._queue: queue.Queue[Optional[Callable[[], None]]] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)
        self._thread.start()

    def answered(
        self,
        model: ServedModel,
        job: Job,
        verdicts: Sequence[Verdict],
        source: Callable[[int], Source],
        seconds: float,
    ) -> None:
        """A request got its answer; ``source(place)`` is one of its pictures as it came."""
        with self._lock:
            counts = self.counts
            counts.requests += 1
            counts.seconds += seconds
            counts.queue_seconds += job.waited
            counts.engine_seconds += job.computed
            counts.last_at = time.time()
        self.metrics.answered(job, verdicts, seconds)
        review: List[Tuple[int, Source, Verdict]] = []
        if self.review is not None:
            review = [
                (place, source(place), each) for place, each in enumerate(verdicts) if each.outcome == ASK
            ]
        if not review and self.drift is None and time.monotonic() < self._again_at:
            return
        size = sum(_size(each) for _, each, _ in review)
        done = _Done(model, job, review, size)
        with self._lock:
            room = self._bytes + size <= LARGEST_WAITING
            if room:
                self._bytes += size
        if not room:
            self._lost(len(review))
            return
        try:
            self._queue.put_nowait(lambda: self._after(done))
        except queue.Full:
            with self._lock:
                self._bytes -= size
            self._lost(len(review))

    def failed(self, code: str) -> None:
        """A request was refused or failed."""
        with self._lock:
            self.counts.failures += 1
        self.metrics.requests.labels(code).inc()

    def model_replaced(self, model: ServedModel, deployment: Deployment, reference: Path) -> None:
        """Another model answers: heat maps and the watch for drift turn to it, in their own thread."""

        def turn() -> None:
            if self.heat_maps is not None:
                self.heat_maps.turn_to(deployment)
            self._turned_to = model, deployment.base_hash, reference
            if self.drift is not None:
                self.drift.begin(*self._turned_to)
            watch = self._watch()
            if watch is not None:
                self.metrics.drifts(watch.state, watch.figures)

        self._queue.put(turn)

    def settings(self, drift: DriftSettings) -> None:
        """Other settings are in force; what was measured stays."""
        if self.drift is not None:
            self.drift.settings = drift

    def close(self) -> None:
        """Finish what waits."""
        self._queue.put(None)
        self._thread.join()

    # -- parts ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            task = self._queue.get()
            if task is None:
                return
            try:
                task()
            except FedspectError as error:
                logger.error("%s", error)
            except Exception as error:
                logger.error("a defect beside the answers", exc_info=error)

    def _watch(self) -> Optional[DriftWatch]:
        """The drift detector, once no other process has it."""
        if self.drift is None and time.monotonic() >= self._again_at:
            self._again_at = time.monotonic() + ASK_AGAIN
            self.drift = self._drift_of()
            if self.drift is not None and self._turned_to is not None:
                self.drift.begin(*self._turned_to)
        return self.drift

    def _after(self, done: _Done) -> None:
        try:
            watch = self._watch()
            if watch is not None and done.job.answer is not None:
                answer = done.job.answer
                watch.add(batch_statistics(done.job.pixels, answer.features, answer.probabilities))
                self.metrics.drifts(watch.state, watch.figures)
            for place, source, verdict in done.review:
                assert self.review is not None
                facts = verdict.as_dict(done.model.classes)
                facts.update(version=done.model.version, number=done.model.number)
                draw = functools.partial(self._draw, done, place, verdict)
                self.review.keep(source, facts, draw)
                self.metrics.review.labels("kept").inc()
        finally:
            with self._lock:
                self._bytes -= done.bytes

    def _draw(self, done: _Done, place: int, verdict: Verdict, path: Path) -> None:
        if self.heat_maps is None:
            return
        try:
            self.heat_maps.draw(path, done.model, done.job.pixels[place], verdict.label)
        except FedspectError as error:  # the picture itself is kept
            logger.error("%s", error)

    def _lost(self, pictures: int) -> None:
        if pictures:
            self.metrics.review.labels("lost").inc(pictures)
            with self._lock:
                self.counts.review_lost += pictures


def _size(source: Source) -> int:
    return len(source) if isinstance(source, bytes) else int(source.nbytes)
