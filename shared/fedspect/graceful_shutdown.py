"""How a process that stays hears that it is to end: an event that SIGTERM or Ctrl-C sets.

A handler must not call ``threading.Event.set`` itself. Python runs it between two steps of the main thread, which may
hold the event's lock just then, in ``wait`` or in the ``set`` of a signal before; the handler would wait for a lock
that only its own thread can give back, for ever. So it writes a byte to a pipe, and a thread sets the event.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading


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
