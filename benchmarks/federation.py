"""What a federation costs around its plants' work, with the real commands as processes on this machine.

Rounds: `fedserver start` and two `fedclient join` over TLS. Their workers answer at once with a change of
model A's whole head, so all but the time that they say they worked is cost: from one closed round to the
next, less the slowest plant's work. Bytes are what travelled, as the run's history counts it. Then the server
is killed (SIGKILL, SuperLink and ServerApp die with it) and started again at once: how long until the next
round is closed. Last, from pasting a token to "joined" with a real worker and 24 small pictures.

    python benchmarks/federation.py [--rounds 50] [--kills 3] [--joins 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "end_to_end"), str(TESTS / "faults")]

from federation_parts import Federation  # noqa: E402
from tiny_parts import TinyFederation, descendants  # noqa: E402
from tiny_worker import Behaviour  # noqa: E402

from fedspect.model.levels import head_state  # noqa: E402
from fedspect.model.network import build_network  # noqa: E402

PLANTS = ("plant-a", "plant-b")


def head_of_model_a() -> Dict[str, np.ndarray]:
    """The levels that travel: model A condensed, six classes."""
    network = build_network("cdnv2-a", 6, channels=1, form="condensed", seed=0)
    state = head_state(network, network.default_freeze_levels)
    return {name: value.numpy().astype("float32") for name, value in state.items()}


def rounds(folder: Path, count: int, kills: int) -> Dict[str, Any]:
    """Cost of a round, bytes, memory, and the way back from a kill."""
    head = head_of_model_a()
    federation = TinyFederation(folder, head=head, encoding="int3", encoding_down="int3", poll=0.1)
    try:
        federation.begin(*PLANTS, behaviour=Behaviour(noise=True))
        while federation.last() < count + 1:
            time.sleep(0.2)
        memory = {
            "server": _tree(federation.server.process.pid),
            "node": _megabytes(federation.plant_processes[PLANTS[0]].process.pid, "VmRSS"),
        }
        back = [_killed(federation) for _ in range(kills)]
        records = [record for record in federation.run.history() if record.round <= count + 1]
        assert [record.round for record in records] == list(range(1, count + 2))
        closed = [_closed(federation, record.round) for record in records]
        periods = [later - earlier for earlier, later in zip(closed, closed[1:])]
        work = [max(plant.seconds["total"] for plant in record.plants) for record in records[1:]]
        cost = [period - done for period, done in zip(periods, work)]
        full = 4 * sum(values.size for values in head.values())
        up = statistics.median(plant.bytes_up for record in records[1:] for plant in record.plants)
        down = statistics.median(plant.bytes_down for record in records[1:] for plant in record.plants)
        return {
            "rounds": len(cost),
            "cost": {"median": statistics.median(cost), "worst": max(cost)},
            "work": statistics.median(work),
            "bytes": {"up": up, "down": down, "float32_head": full, "ratio_up": full / up},
            "megabytes": memory,
            "back_after_kill": back,
        }
    finally:
        federation.close()


def _killed(federation: TinyFederation) -> float:
    """Seconds from a killed server, started again at once, to the next closed round."""
    before = federation.last()
    killed = time.perf_counter()
    federation.server.kill()
    federation.start()
    while federation.last() <= before:
        time.sleep(0.05)
    return time.perf_counter() - killed


def _closed(federation: TinyFederation, number: int) -> float:
    """When a round was put on disk."""
    return (federation.run.folder / f"{number:04d}" / "round.json").stat().st_mtime_ns / 1e9


def joining(folder: Path, count: int) -> Dict[str, Any]:
    """Seconds from `fedclient join TOKEN` to "joined", each time as a new plant with a new worker."""
    federation = Federation(folder)
    seconds: List[float] = []
    try:
        federation.start("--no-rounds").wait_for("plants may join")
        for number in range(count):
            name = f"plant-{number}"
            token = federation.invite(name)
            started = time.perf_counter()
            plant = federation.join(name, token, seed=number)
            while "joined: at" not in plant.said:
                assert plant.process.poll() is None, plant.said
                time.sleep(0.02)
            seconds.append(time.perf_counter() - started)
        tree = descendants(plant.process.pid)
        memory = {"node": _megabytes(tree[0], "VmRSS"), "worker_idle": _megabytes(tree[1], "VmRSS")}
        return {"seconds": seconds, "megabytes": memory}
    finally:
        federation.close()


def _tree(pid: int) -> int:
    """Megabytes of a process and all below it."""
    return sum(_megabytes(each, "VmRSS") for each in descendants(pid))


def _megabytes(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(what):
            return int(line.split()[1]) // 1024
    return 0


def table(result: Dict[str, Any]) -> str:
    """The result for people."""
    lines = [f"load of the machine: {result['load'][0]:.1f} before, {result['load'][1]:.1f} after"]
    if "rounds" in result:
        found = result["rounds"]
        cost, sent = found["cost"], found["bytes"]
        lines += [
            f"a round beyond the work, 2 plants, {found['rounds']} rounds: "
            f"median {cost['median']:.2f} s, worst {cost['worst']:.2f} s",
            f"the work itself (decode, encode): {found['work']:.2f} s",
            f"up per round and plant: {sent['up'] / 1e6:.2f} MB, a {sent['ratio_up']:.1f}th of the float32 head "
            f"({sent['float32_head'] / 1e6:.2f} MB); down {sent['down'] / 1e6:.2f} MB",
            f"memory: server with SuperLink and ServerApp {found['megabytes']['server']} MB, "
            f"a node {found['megabytes']['node']} MB",
            "from a killed server to the next round: "
            + ", ".join(f"{seconds:.1f} s" for seconds in found["back_after_kill"]),
        ]
    if "joining" in result:
        found = result["joining"]
        lines += [
            "from pasting a token to joined: "
            + ", ".join(f"{seconds:.1f} s" for seconds in found["seconds"]),
            f"memory of that plant: node {found['megabytes']['node']} MB, "
            f"worker before its first task {found['megabytes']['worker_idle']} MB",
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, help="0 leaves them out")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--joins", type=int, default=3, help="0 leaves them out")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    given = parser.parse_args()
    before = os.getloadavg()[0]
    result: Dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if given.rounds:
            result["rounds"] = rounds(Path(folder) / "rounds", given.rounds, given.kills)
        if given.joins:
            result["joining"] = joining(Path(folder) / "joining", given.joins)
    result["load"] = [before, os.getloadavg()[0]]
    print(table(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
