"""The commands as a user whom the system does not know."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("words", [["fedclient.cli", "status"], ["fedserver.cli", "status", "-w", "."]])
def test_commands_run_as_a_user_whom_the_system_does_not_know(words: list[str], tmp_path: Path) -> None:
    """In a user namespace with a number that has no name, without ``HOME``."""
    bare = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    stranger = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    if shutil.which("unshare") is None or subprocess.run([*stranger, "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    command = [*stranger, sys.executable, "-m", *words]
    done = subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (10, 61) and "Traceback" not in done.stderr and "to mend it" in done.stderr
