"""Many plants in many processes: Flower's own simulation, which is built on Ray, here or on a cluster.

The ServerApp runs in a thread of this process, so events arrive here as they do with the local backend. Plants
work in Ray's processes, which make each plant's worker from the run folder. Ray takes some ten seconds to start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import flwr.simulation

from fedclient.node.flower.clientapp import build_client_app
from fedserver.rounds.events import OnEvent, RunFinished
from fedsim.backends.job import SimulationJob, prepare_run
from fedsim.backends.outcome import BackendOutcome, quiet_flower
from fedsim.backends.ray_cluster import joined_cluster
from fedsim.backends.workers import FactoryWorkers, resolve_factory
from fedspect.errors import FederationError, InterruptedRunError

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # On a busy machine Ray's helpers need longer than its 30 s to start, and then it ends this process.
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_enable_metrics_collection": "0",
}

PARTITION_KEY = "partition-id"  # Flower's own name for the number of a simulated node

logger = logging.getLogger("fedsim.backends")


def run_ray(job: SimulationJob, on_event: OnEvent, should_stop: Callable[[], bool]) -> RunFinished:
    """Run a job in Flower's simulation; raises as ``run_backend`` does."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    resolve_factory(job.worker_factory)  # a mistake in its name is better said now than by every plant
    store = prepare_run(job)
    stop = threading.Event()
    outcome = BackendOutcome(on_event)
    workers = FactoryWorkers(job.worker_factory, job.run_folder.resolve(), job.plants)
    config: dict[str, dict[str, Any]] = {
        "client_resources": {"num_cpus": job.cpus_per_plant, "num_gpus": job.gpus_per_plant},
        "init_args": {"logging_level": logging.CRITICAL, "log_to_driver": False},
    }
    cluster = joined_cluster(job.run_folder.resolve(), job.shared, **config["init_args"])
    with quiet_flower(logging.CRITICAL), cluster, _gentle_interrupt(stop):
        try:
            flwr.simulation.run_simulation(
                server_app=outcome.server_app(store.folder, lambda: stop.is_set() or should_stop()),
                client_app=build_client_app(
                    lambda context: workers.handler(int(context.node_config[PARTITION_KEY]))
                ),
                num_supernodes=len(job.plants),
                backend_config=config,
            )
        except KeyboardInterrupt:
            raise InterruptedRunError(
                "the run was interrupted", remedy="go on with it: every closed round is on disk"
            ) from None
        except (RuntimeError, ValueError) as error:
            outcome.result()  # our own reason, where there is one, says more than Flower's
            raise FederationError("Flower's simulation failed", seen=error) from error
        finally:
            stop.set()
    return outcome.result()


@contextlib.contextmanager
def _gentle_interrupt(stop: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C end the run between two answers, and only the second break into Ray.

    Ray's threads do not survive to be interrupted while they wait for a plant: the process would crash.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        logger.warning("stopping when the plants' work in progress is done; Ctrl-C again stops at once")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
