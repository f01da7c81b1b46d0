"""Background process: a command started again without a terminal, and watched until it is up."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Sequence

import typer

from fedspect.errors import FederationError, storage_error
from fedspect.files import turn_over

LOOK = 0.2  # seconds


def detach(
    module: str,
    arguments: Sequence[str],
    log: Path,
    *,
    up: Callable[[int], bool],
    within: float,
    told: str = "",
) -> int:
    """Run a module with these arguments in a session of its own; its number once it is up.

    Args:
        module: as for ``python -m``.
        arguments: of its command line, which every user of the machine can read.
        log: what it prints is appended there.
        up: whether the process of that number does what it is for.
        within: seconds that it may take.
        told: what it reads from its standard input; for secrets.

    Raises:
        typer.Exit: it ended before; what it printed is on standard error, and the exit code is its own.
        FederationError: it takes longer.

    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        turn_over(log)
        with log.open("ab") as output:
            before = output.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise storage_error(error, log, "starting a process in the background") from error
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:  # one that ended already is heard of below
        process.stdin.write(told.encode())
    deadline = time.monotonic() + within
    while not up(process.pid):
        code = process.poll()
        if code is not None:
            sys.stderr.write(_since(log, before))
            raise typer.Exit(code if code >= 0 else 128 - code)
        if time.monotonic() > deadline:
            raise FederationError(
                f"it is not up after {within:.0f} s",
                seen=f"process {process.pid}, which goes on: {_since(log, before).strip()[-600:]}",
                remedy=f"see {log}",
            )
        time.sleep(LOOK)
    return process.pid


def _since(log: Path, before: int) -> str:
    with log.open("rb") as file:
        file.seek(before)
        return file.read().decode("utf-8", "replace")
