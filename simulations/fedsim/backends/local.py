"""Many plants in one process: a Flower ``Grid`` that calls the ClientApp itself.

A message passes through Flower's own serialisation both ways, so the two sides share no object and
whatever would not travel over a wire does not travel here. Work starts when its answer is asked for, one
plant after the other in the order of the messages: memory holds one plant's work at a time, and a run has
one outcome. With ``threads`` above 1, that many plants work at once; the outcome is the same, because the
server orders answers by plant.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from flwr.app.error import Error
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common import Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.common.typing import Run
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.server import Grid

from fedclient.node.flower.clientapp import build_client_app
from fedserver.rounds.events import OnEvent, RunFinished
from fedsim.backends.job import SimulationJob, prepare_run
from fedsim.backends.outcome import BackendOutcome, quiet_flower
from fedsim.backends.workers import PARTITION_KEY, FactoryWorkers, forget_workers, resolve_factory
from fedspect.errors import InterruptedRunError

logger = logging.getLogger("fedsim.backends")


class LocalGrid(Grid):
    """Nodes 1 to ``len(nodes)`` of one ClientApp, each with its own context.

    Args:
        app: what every node runs.
        nodes: each node's ``node_config`` (Flower's simulation puts ``partition-id`` there).
        threads: how many nodes work at once.

    """

    def __init__(self, app: ClientApp, nodes: Iterable[Mapping[str, int | str]], *, threads: int = 1) -> None:
        self._app = app
        self._run = Run.create_empty(run_id=1)
        self._contexts = {
            number: Context(self._run.run_id, number, UserConfig(config), RecordDict(), UserConfig())
            for number, config in enumerate(nodes, start=1)
        }
        self._ids = itertools.count(1)
        self._waiting: dict[str, Message] = {}
        self._working: dict[str, Future[Message]] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="plant") if threads > 1 else None

    def set_run(self, run: Run) -> None:
        """Take Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message the old way that ``Grid`` still asks for."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Every node: nobody is ever away here."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; their ids come back in the same order."""
        ids = []
        for message in messages:
            identity = f"message-{next(self._ids)}"
            message.metadata.__dict__.update(
                _run_id=self._run.run_id, _src_node_id=SUPERLINK_NODE_ID, _message_id=identity
            )
            if self._pool is None:
                self._waiting[identity] = message
            else:
                self._working[identity] = self._pool.submit(self._work, message)
            ids.append(identity)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answers that are there; without threads, the work of the first one asked for is done now."""
        wanted = list(message_ids)
        if self._pool is None:
            first = next((identity for identity in wanted if identity in self._waiting), None)
            return [] if first is None else [self._work(self._waiting.pop(first))]
        done = [
            identity for identity in wanted if identity in self._working and self._working[identity].done()
        ]
        return [self._working.pop(identity).result() for identity in done]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, and pull until every answer is there; work here cannot be cut short, whatever the timeout."""
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        while waiting:
            for reply in self.pull_messages(sorted(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
        return replies

    def close(self) -> None:
        """Wait for work in progress and drop what has not begun."""
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _work(self, message: Message) -> Message:
        arrived = _through_the_wire(message)
        try:
            reply = self._app(arrived, self._contexts[arrived.metadata.dst_node_id])
        except Exception as error:  # Flower's node answers this way too
            logger.exception("the ClientApp raised")
            reason = f"{type(error).__name__}: {error}"
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=arrived)
        return _through_the_wire(reply)


def _through_the_wire(message: Message) -> Message:
    """The message as the other side reads it from bytes."""
    return message_from_proto(ProtoMessage.FromString(message_to_proto(message).SerializeToString()))


def run_local(job: SimulationJob, on_event: OnEvent, should_stop: Callable[[], bool]) -> RunFinished:
    """Run a job in this process; raises as ``run_engine`` does."""
    resolve_factory(job.worker_factory)  # a mistake in its name is better said now than by every plant
    store = prepare_run(job)
    outcome = BackendOutcome(on_event)
    workers = FactoryWorkers(job.worker_factory, job.run_folder.resolve(), job.plants)
    nodes = [{PARTITION_KEY: number, "num-partitions": len(job.plants)} for number in range(len(job.plants))]
    grid = LocalGrid(build_client_app(workers), nodes, threads=job.threads)
    context = Context(grid.run.run_id, 0, UserConfig(), RecordDict(), UserConfig())
    with quiet_flower(logging.ERROR):
        try:
            outcome.server_app(store.folder, should_stop)(grid, context)
        except KeyboardInterrupt:
            raise InterruptedRunError(
                "the run was interrupted", remedy="go on with it: every closed round is on disk"
            ) from None
        finally:
            grid.close()
            forget_workers()
    return outcome.result()
