"""Graceful shutdown: a stop event that SIGTERM or Ctrl-C sets, and the end of a child with its parent.

A handler must not call ``threading.Event.set`` itself. Python runs it between two steps of the main thread, which may
hold the event's lock just then, in ``wait`` or in the ``set`` of a signal before; the handler would wait for a lock
that only its own thread can give back, for ever. So it writes a byte to a pipe, and a thread sets the event.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

PARENT_POLL = 0.5  # seconds
PARENT_GRACE = 5.0  # seconds between SIGTERM and the end


def exit_with_parent(parent: int) -> None:
    """Send this process SIGTERM once ``parent`` is gone, and end it for good soon after: nobody else can reach it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PARENT_GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def stop_event(*numbers: signal.Signals) -> threading.Event:
    """An event that is set when one of these signals comes, however often; call it from the main thread."""
    stop = threading.Event()
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def tell(number: int, frame: object) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full of earlier signals
            os.write(told, b"\0")

    def hear() -> None:
        os.read(heard, 1)
        stop.set()

    threading.Thread(target=hear, name="signals", daemon=True).start()
    for number in numbers:
        signal.signal(number, tell)
    return stop
