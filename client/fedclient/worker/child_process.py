"""What a child process of a plant's command tells it: a JSON line each for progress, the reply or the error."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from typing import Any, Callable, Tuple

from fedspect.errors import FedspectError

EVERY = 0.2  # seconds between lines about one stage

Report = Callable[[str, int, int], None]


def tell(work: Callable[[Report], Any]) -> int:
    """Do the work and tell of it on standard output; the exit code. What libraries print goes elsewhere."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    out, sys.stdout = sys.stdout, sys.stderr
    last: Tuple[str, float] = ("", 0.0)

    def line(content: Any) -> None:
        out.write(json.dumps(content) + "\n")
        out.flush()

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        if stage == last[0] and done < total and time.monotonic() - last[1] < EVERY:
            return
        last = (stage, time.monotonic())
        line({"progress": [stage, done, total]})

    try:
        line({"reply": work(report)})
        return 0
    except FedspectError as error:
        line({"error": error.as_dict()})
        return error.exit_code
