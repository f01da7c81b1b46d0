"""Run a node that dies while it hands an answer in: ``python -m dying_node FILE MODULE ARGUMENTS``.

While there is a file FILE, the node removes it and ends itself (SIGKILL) when it would send an answer: what it did is
on its disk by then, and nothing of it at headquarters.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from fedclient.node.flower.fleet_connection import FleetConnection

MARK = Path(sys.argv[1])
call = FleetConnection.call


def dying_call(link: FleetConnection, method: str, request: Any, **more: Any) -> Any:
    if method == "PushMessages" and MARK.exists():
        MARK.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return call(link, method, request, **more)


if __name__ == "__main__":
    vars(sys.modules["fedclient.node.flower.fleet_connection"])["FleetConnection"].call = dying_call
    module, sys.argv = sys.argv[2], sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
