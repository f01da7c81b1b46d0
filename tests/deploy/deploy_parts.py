"""What the tests of deploy/ share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tool(name: str) -> str:
    """A program beside this interpreter or on the path; skips where there is none."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def verify(tmp_path: Path, source: Path, name: str) -> None:
    """Let systemd-analyze read a unit; its program is not installed here, so another one stands for it."""
    lines = source.read_text().splitlines()
    standing_in = ["ExecStart=/bin/true" if line.startswith("ExecStart=") else line for line in lines]
    (tmp_path / name).write_text("\n".join(standing_in) + "\n")
    words = [tool("systemd-analyze"), "verify", str(tmp_path / name)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and name not in done.stderr, done.stderr
