"""A process that is told to end hears it, whatever its main thread does at that moment."""

from __future__ import annotations

import os
import subprocess
import sys

TOLD_WHILE_THE_LOCK_IS_HELD = """
import os, signal
from fedspect.graceful_shutdown import stop_event

stop = stop_event(signal.SIGTERM, signal.SIGINT)
with stop._cond:  # as in the middle of Event.wait and Event.set
    for number in (signal.SIGTERM, signal.SIGINT) * {times}:
        os.kill(os.getpid(), number)
    assert not stop.is_set()
assert stop.wait(60.0)
stop.wait()
print("ended")
"""


def ends(times: int) -> None:
    program = TOLD_WHILE_THE_LOCK_IS_HELD.format(times=times)
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (0, "ended\n"), answer.stderr


def test_a_signal_is_heard_while_the_event_is_locked() -> None:
    ends(1)


def test_more_signals_than_a_pipe_holds_are_heard_once() -> None:
    ends(100_000)
