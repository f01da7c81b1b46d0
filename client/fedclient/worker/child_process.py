"""Child process protocol of a plant's commands: one JSON line each for progress, the reply or the error."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from typing import Any, Callable, Tuple

from fedspect.errors import FedspectError

EVERY = 0.2  # seconds between lines about one stage

Report = Callable[[str, int, int], None]


class JsonLines:
    """Writes lines to what was standard output; what libraries print goes to standard error from now on."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def write(self, **content: Any) -> None:
        """One line; a reader that is gone is not an error here."""
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._stream.write(json.dumps(content) + "\n")
            self._stream.flush()


def tell(work: Callable[[Report], Any]) -> int:
    """Do the work and report it on standard output; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    lines = JsonLines()
    last: Tuple[str, float] = ("", 0.0)

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        if stage == last[0] and done < total and time.monotonic() - last[1] < EVERY:
            return
        last = (stage, time.monotonic())
        lines.write(progress=[stage, done, total])

    try:
        lines.write(reply=work(report))
        return 0
    except FedspectError as error:
        lines.write(error=error.as_dict())
        return error.exit_code
