"""`fedserver` whose ServerApp's process is ``dying_serverapp``."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Dict, List

from fedserver import cli
from fedserver.flower import superlink

spawn = superlink.SuperLink._spawn


def spawn_dying(
    self: superlink.SuperLink, command: List[str], more: Dict[str, str]
) -> subprocess.Popen[bytes]:
    if command[1:] == ["-m", "fedserver.flower.serverapp_process"]:
        command = [command[0], str(Path(__file__).with_name("dying_serverapp.py"))]
    return spawn(self, command, more)


if __name__ == "__main__":
    superlink.SuperLink._spawn = spawn_dying  # type: ignore[method-assign]
    cli.main()
