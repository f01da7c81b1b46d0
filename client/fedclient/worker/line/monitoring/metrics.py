"""Prometheus metrics of the line."""

from __future__ import annotations

from typing import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from fedclient.worker.line.decision_policy import Verdict
from fedclient.worker.line.monitoring.drift import ALARM
from fedclient.worker.line.serving.model_leases import Job, ServedModel

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All metrics; ``text`` is what ``/metrics`` answers."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "fedspect_line_requests", "Requests by how they ended.", ["code"], registry=registry
        )
        self.verdicts = Counter(
            "fedspect_line_pictures",
            "Pictures by class and verdict.",
            ["label", "verdict"],
            registry=registry,
        )
        self.seconds = Histogram(
            "fedspect_line_request_seconds", "From request to reply.", buckets=SECONDS, registry=registry
        )
        self.queue_seconds = Histogram(
            "fedspect_line_queue_seconds", "Waiting for the engine.", buckets=SECONDS, registry=registry
        )
        self.engine_seconds = Histogram(
            "fedspect_line_engine_seconds", "A batch in the engine.", buckets=SECONDS, registry=registry
        )
        self.waiting = Gauge("fedspect_line_waiting_pictures", "Pictures in the queue.", registry=registry)
        self.swaps = Counter("fedspect_line_swaps", "Versions taken up.", registry=registry)
        self.number = Gauge("fedspect_line_version", "Number of the version that answers.", registry=registry)
        self.version = Info("fedspect_line_model", "The version that answers.", registry=registry)
        self.problem = Gauge(
            "fedspect_line_problem",
            "1 while the current version or line.toml cannot be used as it is; /health/ready says why.",
            registry=registry,
        )
        self.review = Counter(
            "fedspect_line_review_pictures",
            "Pictures kept for labelling, or lost.",
            ["result"],
            registry=registry,
        )
        self.drift = Gauge("fedspect_line_drift_alarm", "1 while pictures differ.", registry=registry)
        self.drift_value = Gauge(
            "fedspect_line_drift", "Distance from the reference by figure.", ["figure"], registry=registry
        )
        self.drift_limit = Gauge(
            "fedspect_line_drift_limit", "Where its alarm begins.", ["figure"], registry=registry
        )

    def answered(self, job: Job, verdicts: Sequence[Verdict], seconds: float) -> None:
        """Count a request that got its answer."""
        self.requests.labels("ok").inc()
        self.seconds.observe(seconds)
        self.queue_seconds.observe(job.waited)
        self.engine_seconds.observe(job.computed)
        for each in verdicts:
            self.verdicts.labels(each.label, each.outcome).inc()

    def model_replaced(self, model: ServedModel) -> None:
        """Another version answers."""
        self.swaps.inc()
        self.number.set(model.number)
        self.version.info({"version": model.version, "number": str(model.number)})

    def drifts(self, state: str, figures: dict[str, dict[str, float]]) -> None:
        """Set the drift metrics."""
        self.drift.set(1 if state == ALARM else 0)
        self.drift_value.clear()  # of the reference before
        self.drift_limit.clear()
        for name, each in figures.items():
            self.drift_value.labels(name).set(each["value"])
            self.drift_limit.labels(name).set(each["limit"])

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)
