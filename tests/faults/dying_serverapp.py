"""The ServerApp's process (``fedserver.flower.serverapp_process``) that dies before one particular change of the disk.

Python tells of every file that is opened for writing, made, renamed or removed ("audit events"), so nothing
of the product has to know of this. The first rename that closes a round is let through; from then on changes
below the run's folder are counted, and the process ends itself (SIGKILL) before the one that it was given.
Which one that is, is the first line of the file ``DYING_PLAN``, which every start takes for itself; without a
line it lives, and writes what it would have counted from one round to the next into ``DYING_PLAN.seen``. A round
that takes fewer changes than that (a busy machine says more often what it waits for) ends it before its last.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, List, Optional, Tuple

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PATH_OF = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "shutil.rmtree": 0}


class Counter:
    """Counts changes below a folder, and dies before the one that was asked for."""

    def __init__(self, folder: Path, plan: Path) -> None:
        self.folder = str(folder)
        self.plan = plan
        lines = plan.read_text().splitlines() if plan.exists() else []
        self.fatal: Optional[int] = int(lines[0]) if lines else None
        plan.write_text("\n".join(lines[1:]))
        self.closed = 0
        self.seen: List[str] = []

    def hear(self, event: str, arguments: Tuple[Any, ...]) -> None:
        path = self._changed(event, arguments)
        if path is None:
            return
        closing = event == "os.rename" and Path(path).name.isdigit()
        if self.closed == 1:
            self.seen.append(f"{event} {Path(path).name}")
            if len(self.seen) == self.fatal or (closing and self.fatal is not None):
                os.kill(os.getpid(), signal.SIGKILL)
        if closing:
            self.closed += 1
            if self.closed == 2 and self.fatal is None:
                self.plan.with_suffix(".seen").write_text("\n".join(self.seen))

    def _changed(self, event: str, arguments: Tuple[Any, ...]) -> Optional[str]:
        """The path below the folder that an event is about to change."""
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, (str, bytes)) or not isinstance(flags, int) or not flags & WRITING:
                return None
        elif event in PATH_OF:
            path = arguments[PATH_OF[event]]
        else:
            return None
        path = os.fsdecode(path)
        if not path.startswith(self.folder):
            return None
        idle = (
            Path(path).exists()
            if event == "os.mkdir"
            else event != "open" and not Path(arguments[0]).exists()
        )
        return None if idle else path  # what is there is not made, what is not there is not removed


if __name__ == "__main__":
    counter = Counter(Path(os.environ["DYING_RUN"]), Path(os.environ["DYING_PLAN"]))
    sys.addaudithook(counter.hear)
    from fedserver.flower.serverapp_process import main

    main()
