"""Local backend: many plants in one process, behind a transport that calls their message handlers itself.

Nothing but bytes passes between the two sides, as over a wire. Work starts when its reply is asked for, one
plant after the other in the order of the messages: memory holds one plant's work at a time, and a run has
one outcome. With ``threads`` above 1, that many plants work at once; the outcome is the same, because the
server orders updates by plant.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from fedclient.node.message_handler import Answer
from fedserver.rounds.events import OnEvent, RunFinished
from fedserver.rounds.loop import RoundLoop
from fedserver.rounds.transport import Reply
from fedsim.backends.job import SimulationJob, prepare_run
from fedsim.backends.workers import FactoryWorkers, forget_workers, resolve_factory
from fedspect.errors import InterruptedRunError

MOST_REPLIES = 8  # in memory at once

Work = Callable[[], Reply]


class LocalTransport:
    """A ``fedserver.rounds.transport.Transport`` to nodes 1 to ``len(handlers)`` of this process.

    Args:
        handlers: what answers each node's messages.
        threads: how many nodes work at once.

    """

    def __init__(self, handlers: Sequence[Callable[[str, bytes], Answer]], *, threads: int = 1) -> None:
        self._handlers = handlers
        self._ids = itertools.count(1)
        self._waiting: dict[str, Work] = {}
        self._working: dict[str, Future[Reply]] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="plant") if threads > 1 else None

    def nodes(self) -> set[int]:
        """Every node: nobody is ever away here."""
        return set(range(1, len(self._handlers) + 1))

    def send(
        self, nodes: Sequence[int], kind: str, body: bytes, *, lifetime: float, group: str
    ) -> Sequence[str | None]:
        """Take messages; with threads their work may begin now."""
        return [self._take(node, kind, body) for node in nodes]

    def _take(self, node: int, kind: str, body: bytes) -> str:
        identity = f"message-{next(self._ids)}"

        def work() -> Reply:
            answer = self._handlers[node - 1](kind, body)
            return Reply(identity, answer.body, answer.failure)

        if self._pool is None:
            self._waiting[identity] = work
        else:
            self._working[identity] = self._pool.submit(work)
        return identity

    def receive(self, messages: Sequence[str]) -> Iterable[Reply]:
        """Replies that are there; without threads, the work of the first one asked for is done now."""
        if self._pool is None:
            first = next((identity for identity in messages if identity in self._waiting), None)
            return [] if first is None else [self._waiting.pop(first)()]
        done = [one for one in messages if one in self._working and self._working[one].done()]
        return [self._working.pop(identity).result() for identity in done[:MOST_REPLIES]]

    def close(self) -> None:
        """Wait for work in progress and drop what has not begun."""
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def run_local(job: SimulationJob, on_event: OnEvent, should_stop: Callable[[], bool]) -> RunFinished:
    """Run a job in this process; raises as ``run_backend`` does."""
    resolve_factory(job.worker_factory)  # a mistake in its name is better said now than by every plant
    store = prepare_run(job)
    workers = FactoryWorkers(job.worker_factory, job.run_folder.resolve(), job.plants)
    handlers = [workers.handler(number) for number in range(len(job.plants))]
    transport = LocalTransport(handlers, threads=job.threads)
    try:
        return RoundLoop(transport, store, on_event, should_stop=should_stop).run()
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "the run was interrupted", remedy="go on with it: every closed round is on disk"
        ) from None
    finally:
        transport.close()
        forget_workers()
