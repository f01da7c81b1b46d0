"""The same round with stock Flower: its SuperLink, two of its SuperNodes, its FedAvg, nothing of ours.

Each node answers train and evaluate at once with an array of the head's size; TLS and node keys are left out,
which is in Flower's favour. Printed is the time between two rounds, median and worst; compare with
``federation.py`` in the same hour on the same machine.

    python benchmarks/stock_flower.py [--rounds 5] [--megabytes 4.6] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

from fedserver.flower.superlink import free_port

SERVER = """
import time
from pathlib import Path
import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    def aggregate_evaluate(self, *args):
        with Path(TIMES).open("a") as file:
            file.write(f"{time.time()}\\n")
        return super().aggregate_evaluate(*args)


@app.main()
def main(grid: Grid, context: Context) -> None:
    values = np.random.default_rng(0).normal(size=FLOATS).astype("float32")
    strategy = Timed(min_train_nodes=2, min_evaluate_nodes=2, min_available_nodes=2)
    strategy.start(grid, initial_arrays=ArrayRecord([values]), num_rounds=ROUNDS)
"""
CLIENT = """
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.5})}), reply_to=message)
"""
PROJECT = """
[project]
name = "stock"
version = "1.0.0"
description = "-"
license = "Apache-2.0"
dependencies = ["flwr"]
[tool.flwr.app]
publisher = "stock"
[tool.flwr.app.components]
serverapp = "stock.server:app"
clientapp = "stock.client:app"
[tool.flwr.app.config]
"""
GIVE_UP = 600.0  # seconds


def write_app(folder: Path, *, rounds: int, floats: int, times: Path) -> None:
    """An app as Flower's users write it."""
    (folder / "stock").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    constants = f"TIMES, FLOATS, ROUNDS = {str(times)!r}, {floats}, {rounds}\n"
    (folder / "stock" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "stock" / "server.py").write_text(constants + SERVER, encoding="utf-8")
    (folder / "stock" / "client.py").write_text(CLIENT, encoding="utf-8")


def measure(folder: Path, rounds: int, megabytes: float) -> Dict[str, Any]:
    """Start Flower's own processes and let them run so many rounds."""
    times = folder / "times"
    write_app(folder / "app", rounds=rounds + 1, floats=int(megabytes * 1e6 / 4), times=times)
    fleet, control, serverapp = (f"127.0.0.1:{free_port()}" for _ in range(3))
    home = folder / "flower"
    home.mkdir()
    settings = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{control}"\ninsecure = true\n'
    (home / "config.toml").write_text(settings, encoding="utf-8")
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    superlink = [str(programs / "flower-superlink"), "--insecure", "--fleet-api-address", fleet]
    superlink += ["--control-api-address", control, "--serverappio-api-address", serverapp]
    commands = [superlink]
    for _ in range(2):
        node = [str(programs / "flower-supernode"), "--insecure", "--superlink", fleet]
        commands.append([*node, "--clientappio-api-address", f"127.0.0.1:{free_port()}"])
    processes: List[subprocess.Popen[bytes]] = []
    try:
        with (folder / "log").open("wb") as log:
            for command in commands:
                processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
                time.sleep(5.0)
            run = [str(programs / "flwr"), "run", str(folder / "app"), "here"]
            subprocess.run(run, env=environment, stdout=log, stderr=log, check=True)
        began = time.monotonic()
        while not times.exists() or len(times.read_text().split()) < rounds + 1:
            if time.monotonic() - began > GIVE_UP:
                raise SystemExit((folder / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.5)
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
    ends = [float(line) for line in times.read_text().split()]
    seconds = [later - earlier for earlier, later in zip(ends, ends[1:])]
    return {"rounds": len(seconds), "median": statistics.median(seconds), "worst": max(seconds)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=4.6)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    given = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), given.rounds, given.megabytes)
    result["load"] = [before, os.getloadavg()[0]]
    print(
        f"stock Flower, train and evaluate, 2 nodes, {given.megabytes} MB, {result['rounds']} rounds: "
        f"median {result['median']:.1f} s, worst {result['worst']:.1f} s "
        f"(load {result['load'][0]:.1f} to {result['load'][1]:.1f})"
    )
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
