"""What a plant takes of its device's memory: a real node and a real trainer, on surfaces that are drawn.

Headquarters and one plant as `fedserver start` and `fedclient join` run them, the base model that ships
(model A, 224 px), batch 32, frozen features cached, on the processor. Printed are the resident memory of
both processes, at rest and at their highest (the kernel's own high-water mark), in MB of a million bytes,
beside the goals: node 250, trainer 1500. Flower's own node and client process take 220 to 380 before torch.

    python benchmarks/plant_memory.py --rounds 4 --per-class 40
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from fedserver.flower.superlink import free_port
from fedsim.synthetic import CLASSES, draw_dataset

GOALS = {"node": 250.0, "trainer": 1500.0}
PATIENCE = 900.0  # seconds


def main() -> None:
    """Run a small federation and print what its plant takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--per-class", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), given.rounds, given.per_class)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'MB':24}{'at rest':>10}{'highest':>10}{'goal':>8}")
    for process in GOALS:
        rest, highest = (found[f"{process} {what}"] for what in ("at rest", "highest"))
        print(f"{process:24}{rest:10.0f}{highest:10.0f}{GOALS[process]:8.0f}")
    print(f"after {found['rounds']} rounds of {found['pictures']} pictures")


def measure(folder: Path, rounds: int, per_class: int) -> dict[str, Any]:
    """The figures, in MB."""
    draw_dataset(folder / "pictures", per_class=per_class, size=224, seed=1)
    hq, home = folder / "hq", folder / "home"
    run("fedserver.cli", "init", str(hq), "--host", "localhost")
    settings = {
        "classes": list(CLASSES),
        "fleet_port": free_port(),
        "enrolment_port": free_port(),
        "quorum": 1,
        "batch_size": 32,
    }
    text = (hq / "fedserver.toml").read_text(encoding="utf-8")
    for key, value in settings.items():
        text = re.sub(rf"(?m)^(# )?{key} =.*$", f"{key} = {json.dumps(value)}", text, count=1)
    (hq / "fedserver.toml").write_text(text, encoding="utf-8")
    token = run("fedserver.cli", "invite", "plant-a", "-w", str(hq)).strip()
    server = start(folder / "server.log", "fedserver.cli", "start", "-w", str(hq), "--rounds", str(rounds))
    plant = start(
        folder / "plant.log",
        *("fedclient.cli", "join", token, "--data", str(folder / "pictures"), "--home", str(home)),
    )
    try:
        wait(lambda: "joined: at" in said(folder / "plant.log"), "the plant joins", plant)
        node = psutil.Process(plant.pid)
        rest = node.memory_info().rss
        wait(lambda: f"round {rounds} closed" in said(folder / "server.log"), "the rounds end", server)
        trainer = next(each for each in node.children() if "fedclient.worker.service" in each.cmdline())
        time.sleep(2.0)
        return {
            "node at rest": rest / 1e6,
            "node highest": highest(plant.pid) / 1e6,
            "trainer at rest": trainer.memory_info().rss / 1e6,
            "trainer highest": highest(trainer.pid) / 1e6,
            "rounds": rounds,
            "pictures": per_class * len(CLASSES),
        }
    finally:
        for process in (plant, server):
            process.terminate()
        for process in (plant, server):
            process.wait(60)


def highest(pid: int) -> int:
    """Bytes: the kernel's high-water mark of resident memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def said(log: Path) -> str:
    """What a process has printed so far."""
    return log.read_text("utf-8", "replace") if log.exists() else ""


def wait(condition: Callable[[], bool], what: str, process: subprocess.Popen[bytes]) -> None:
    """Until the condition holds, while the process lives."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{what}: it did not come to that (exit {process.poll()})")
        time.sleep(0.1)


def environment() -> dict[str, str]:
    """Ours, with the packages of this checkout and without Flower's reports to its makers."""
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return {**found, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def run(*words: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, env=environment(), check=True, capture_output=True, text=True).stdout


def start(log: Path, *words: str) -> subprocess.Popen[bytes]:
    """A command that stays."""
    with log.open("ab") as output:
        command = [sys.executable, "-m", *words]
        return subprocess.Popen(command, env=environment(), stdout=output, stderr=output)


if __name__ == "__main__":
    main()
