"""The message handler carries bytes to a worker, turns failures into words, and needs neither torch nor Flower."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fedclient.node.message_handler import LONGEST_NOTICE, MessageHandler
from fedspect.errors import WorkerError, YieldedError
from fedspect.protocol.messages import DESCRIBE, NOTICE, TRAIN


class Echo:
    """A worker that answers what it was asked, backwards."""

    def work(self, task: bytes) -> bytes:
        return task[::-1]

    def describe(self) -> bytes:
        return b"a plant"


class Failing(Echo):
    """A worker that does not."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def work(self, task: bytes) -> bytes:
        raise self.error


def test_a_task_reaches_the_worker_and_a_plant_describes_itself() -> None:
    handler = MessageHandler(Echo)
    assert handler(TRAIN, b"abc").body == b"cba"
    assert handler(DESCRIBE, b"").body == b"a plant"


def test_a_notice_is_heard_and_bounded() -> None:
    heard: list[str] = []
    handler = MessageHandler(Echo, on_notice=heard.append)
    assert handler(NOTICE, "refused: é".encode()).failure is None
    handler(NOTICE, b"x" * 10**6)
    assert heard[0] == "refused: é"
    assert len(heard[1]) == LONGEST_NOTICE


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            WorkerError("the worker was killed", remedy="it is started again"),
            "WorkerError: the worker was killed",
        ),
        (MemoryError("4 GB"), "MemoryError: 4 GB"),
        (YieldedError("the line needs the device"), "YieldedError: the line needs the device"),
    ],
)
def test_a_worker_that_fails_is_reported_with_its_reason(error: Exception, words: str) -> None:
    answer = MessageHandler(lambda: Failing(error))(TRAIN, b"task")
    assert answer.failure is not None and answer.failure.startswith(words)


def test_a_worker_that_cannot_even_be_found_is_reported() -> None:
    def no_worker() -> Echo:
        raise WorkerError("there is no worker")

    failure = MessageHandler(no_worker)(TRAIN, b"task").failure
    assert failure is not None and "there is no worker" in failure


def test_a_kind_of_message_that_nobody_knows_is_a_failure() -> None:
    failure = MessageHandler(Echo)("evaluate", b"").failure
    assert failure is not None and "evaluate" in failure


def test_the_node_never_loads_torch_and_its_handler_no_flower() -> None:
    code = (
        "import sys, fedclient.node.message_handler; before = set(sys.modules)\n"
        "import fedclient.node.flower.fleet_node\n"
        "print('flwr' in before, sorted({m.split('.')[0] for m in sys.modules}))"
    )
    path = os.pathsep.join(filter(None, sys.path))
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    ).stdout
    assert found.startswith("False") and "'flwr'" in found
    for heavy in ("torch", "torchvision", "PIL", "onnxruntime", "ray"):
        assert f"'{heavy}'" not in found
