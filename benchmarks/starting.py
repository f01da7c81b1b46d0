"""How long commands take to start, and a plant to join: processor seconds of a command, wall seconds of joining.

    python benchmarks/starting.py [--tries 10] [--joins 3]

Each figure is the least of its tries: what other programs do beside it only ever adds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from fedserver.flower.superlink import free_port

COMMANDS = (
    "fedclient --help",
    "fedclient status",
    "fedclient engines rollback",
    "fedserver --help",
    "fedsim --help",
)
MEMBERSHIP = {
    "plant": "plant-a",
    "federation": "steel",
    "fingerprint": "00" * 32,
    "enrolment_addresses": ["127.0.0.1:1"],
    "fleet_addresses": ["127.0.0.1:2"],
    "classes": ["crack", "good"],
    "base_hash": "00" * 32,
    "data": "/pictures",
}
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def started(command: str, home: Path) -> float:
    """Processor seconds of one run of a command."""
    name, *words = command.split()
    with subprocess.Popen(
        [Path(sys.executable).with_name(name), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "FEDSPECT_HOME": str(home)},
    ) as process:
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return used.ru_utime + used.ru_stime


def run(name: str, *words: str) -> str:
    """What a command prints."""
    command = [str(Path(sys.executable).with_name(name)), *words]
    environment = {**os.environ, **QUIET}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def joined(folder: Path, headquarters: Path, name: str) -> float:
    """Wall seconds from the command to a plant with 40 pictures that is joined."""
    random = np.random.default_rng(0)
    for label in ("crack", "good"):
        (folder / name / label).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 255, (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / label / f"{number}.png")
    token = run("fedserver", "invite", name, "-w", str(headquarters)).strip()
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("fedclient")), "join", token, "--data", str(folder / name)]
    with subprocess.Popen(
        [*command, "--home", str(folder / f"{name}-home")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET},
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("joined"))
        took = time.monotonic() - began
        process.terminate()
        process.communicate()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--joins", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plant.json").write_text(json.dumps(MEMBERSHIP), encoding="utf-8")
        for command in COMMANDS:
            print(
                f"{command:28} {min(started(command, folder) for _ in range(given.tries)):.2f} s of the processor"
            )
        if given.joins:
            headquarters = folder / "hq"
            run("fedserver", "init", str(headquarters), "--host", "localhost", "--classes", "crack,good")
            settings = headquarters / "fedserver.toml"
            text = settings.read_text(encoding="utf-8")
            for port in ("fleet_port", "enrolment_port"):
                text = re.sub(rf"(?m)^(# )?{port} =.*$", f"{port} = {free_port()}", text)
            settings.write_text(text, encoding="utf-8")
            run("fedserver", "start", "-w", str(headquarters), "--no-rounds", "--detach")
            try:
                took = [joined(folder, headquarters, f"plant-{number}") for number in range(given.joins)]
            finally:
                run("fedserver", "stop", "-w", str(headquarters))
            print(f"{'fedclient join':28} {min(took):.1f} s until it is joined")


if __name__ == "__main__":
    main()
