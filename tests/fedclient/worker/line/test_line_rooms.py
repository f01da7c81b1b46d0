from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fedclient.worker.line.home import LineHome
from line_parts import command, environment, run

COMMANDS = ("predict", "watch", "serve", "bench", "thresholds", "review", "drift")


def test_the_line_loads_neither_torch_nor_flower() -> None:
    script = (
        "import sys\n"
        "import fedclient.worker.line.cli, fedclient.worker.line.bench\n"
        "import fedclient.worker.line.explain.class_activation\n"
        "import fedclient.worker.engines.onnxruntime_engine\n"
        "import fedclient.worker.engines.builder\n"
        "found = [name for name in ('torch', 'torchvision', 'flwr', 'fedclient.node') if name in sys.modules]\n"
        "sys.exit(str(found) if found else 0)\n"
    )
    environment_ = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment_, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_command_explains_itself(home: LineHome) -> None:
    done = run(home, "--help")
    assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS)
    assert "Usage: fedclient" in run(home, "serve", "--help").stdout


def test_fedclient_hands_its_commands_on_as_they_are(home: LineHome) -> None:
    pytest.importorskip("flwr")
    from fedclient.commands.line import COMMANDS as HANDED_ON

    assert tuple(HANDED_ON) == COMMANDS
    arguments = [sys.executable, "-m", "fedclient.cli", "thresholds", "--home", str(home.folder), "--json"]
    done = subprocess.run(arguments, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == subprocess.check_output(
        command("thresholds", "--json"), env=environment(home), text=True
    )
    wrong = subprocess.run(
        [*arguments, "--sure", "2"], env=environment(home), capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 10
