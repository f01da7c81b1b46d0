"""Many plants at one headquarters: the processor's work for each plant and round, and for plants that only wait.

The SuperLink and the ServerApp with the round loop are headquarters' own processes. The plants are real connections
over TLS, each with a key of its own and the node's own code, many in one process; they answer at once with a drawn
change of model A's head. Enrolment and training are left out. ``--leaving`` lets a third of them leave and come back
all the time.

    python benchmarks/many_plants.py --plants 100 [--rounds 6] [--processes 2] [--idle 30] [--leaving] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from safetensors.numpy import load_file, save_file

from fedclient.node.flower.fleet_node import FleetNode, NotRecognisedError
from fedclient.node.flower.message_store import MessageStore
from fedclient.node.message_handler import MessageHandler
from fedspect.update.encoding import encode
from fedspect.update.round_messages import PlantDescription, RoundReply, RoundTask

CLASSES = ["plain", "striped"]
BASE = "ba5e" * 16
PICTURES = 100
IDLE_FROM = 75.0  # seconds after the last message, when the SuperLink lets nodes ask seldom


class DrawnPlant:
    """A worker that answers at once with the same change of its own."""

    def __init__(self, number: int, head: Dict[str, np.ndarray]) -> None:
        self.name = f"plant-{number}"
        self.holds: Optional[str] = None
        draw = np.random.default_rng(number)
        change = {name: 1e-3 * draw.normal(size=v.shape).astype(np.float32) for name, v in head.items()}
        self.payload = encode(change, encoding="int3")

    def describe(self) -> bytes:
        """Every plant has the same pictures."""
        counts = dict.fromkeys(CLASSES, PICTURES)
        return PlantDescription(
            plant=self.name,
            software="drawn",
            classes=CLASSES,
            counts=counts,
            base_hash=BASE,
            holds=self.holds,
        ).to_bytes()

    def work(self, body: bytes) -> bytes:
        """Its change, or an evaluation."""
        task = RoundTask.from_bytes(body)
        self.holds = task.version
        reply = RoundReply(
            plant=self.name,
            run_id=task.run_id,
            round=task.round,
            base_hash=BASE,
            version=task.version,
            holds=task.version,
            encoding="int3",
            evaluated=PICTURES,
            metrics={"accuracy": 0.5},
        )
        if task.train:
            trained = {"num_examples": 2 * PICTURES, "counts": dict.fromkeys(CLASSES, PICTURES)}
            reply = reply.model_copy(update={**trained, "payload": self.payload})
        return reply.to_bytes()


def plants(folder: Path, address: str, authority: Path, first: int, count: int, leaving: bool) -> None:
    """Some of the plants, in threads of this process, until its standard input closes."""
    head = load_file(folder / "head.safetensors")
    stop = threading.Event()

    def stay(number: int) -> None:
        plant = DrawnPlant(number, head)
        key = load_pem_private_key((folder / f"key-{number}").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        node = FleetNode(
            [address],
            authority.read_bytes(),
            key,
            MessageHandler(lambda: plant),
            MessageStore(folder / f"message-{number}"),
        )
        while not stop.is_set():
            here = threading.Event() if leaving and number % 3 == 0 else stop
            if here is not stop:
                threading.Timer(random.uniform(5.0, 15.0), here.set).start()
            try:
                node.run(here)
            except NotRecognisedError as error:
                print(error, file=sys.stderr)
                return

    threads = [threading.Thread(target=stay, args=(number,)) for number in range(first, first + count)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()


def measure(folder: Path, given: argparse.Namespace) -> Dict[str, Any]:
    """Bring everything up, count processor seconds from the first closed round to the last, then while idle."""
    from flwr.supercore.primitives.asymmetric import private_key_to_bytes, public_key_to_bytes

    from federation import head_of_model_a
    from fedserver.flower.control_api import thin_bundle
    from fedserver.flower.node_register import NODES_FILE
    from fedserver.flower.superlink import SuperLink, free_port
    from fedserver.rounds.settings import RoundSettings
    from fedserver.storage.run_state import RunFacts
    from fedserver.storage.run_store import RunStore
    from fedserver.workspace import Workspace, create

    count, rounds = given.plants, given.rounds
    create(folder / "hq", ["localhost"])
    workspace = Workspace.open(folder / "hq")
    head = head_of_model_a()
    save_file(head, folder / "head.safetensors")
    settings = RoundSettings(
        rounds=rounds,
        quorum=count // 2 if given.leaving else count,
        expected_plants=count,
        gather=300.0,
        deadline=60.0 if given.leaving else 600.0,
    )
    facts = RunFacts(
        run_id="many",
        base_hash=BASE,
        classes=CLASSES,
        seed=0,
        strategy="fedavg",
        strategy_options={},
        rounds=settings,
    )
    store = RunStore.create(workspace.runs / "run-0001", facts, head)
    superlink = SuperLink(workspace.state / "flower", workspace.authority, workspace.logs / "superlink.log")
    port = free_port()
    superlink.start("127.0.0.1", port)
    control = superlink.control()
    processes: List[subprocess.Popen[bytes]] = []
    try:
        register = {}
        for number in range(count):
            key = ec.generate_private_key(ec.SECP384R1())
            (folder / f"key-{number}").write_bytes(private_key_to_bytes(key))
            node = control.register(public_key_to_bytes(key.public_key()).decode())
            register[str(node)] = f"plant-{number}"
        (superlink.folder / NODES_FILE).write_text(json.dumps(register), encoding="utf-8")
        share = -(-count // given.processes)
        for first in range(0, count, share):
            command = [sys.executable, __file__, "--some", str(folder), f"localhost:{port}"]
            command += [str(workspace.authority.certificate_path), str(first), str(min(share, count - first))]
            command += ["leaving"] if given.leaving else []
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        _wait(lambda: len(control.online()) >= (count // 2 if given.leaving else count))
        config = {"run-folder": str(store.folder)}
        control.submit(thin_bundle("fedserver.flower.workspace_serverapp", {"run-folder": ""}), config)
        superlink.start_serverapp()
        _wait(lambda: store.rounds()[-1] >= 1)
        serverapp = superlink.serverapp_pid
        pids = {"superlink": superlink.pid, "serverapp": serverapp, "plants": [p.pid for p in processes]}
        before = {name: _seconds(pid) for name, pid in pids.items()}
        _wait(lambda: store.rounds()[-1] >= rounds)
        after = {name: _seconds(pid) for name, pid in pids.items()}
        memory = {name: _megabytes(pid) for name, pid in pids.items() if name != "plants"}
        records = store.history()[1:]
        each = {name: (after[name] - before[name]) / len(records) / count for name in pids}
        result = {
            "plants": count,
            "round_seconds": {
                "median": statistics.median(record.seconds for record in records),
                "worst": max(record.seconds for record in records),
            },
            "processor_seconds_per_plant_and_round": {
                **each,
                "headquarters": each["superlink"] + each["serverapp"],
            },
            "megabytes": memory,
            "answers_per_round": statistics.mean(len(record.plants) for record in records),
        }
        if given.idle:
            time.sleep(IDLE_FROM)
            start = _seconds(superlink.pid), time.monotonic()
            time.sleep(given.idle)
            used, seconds = _seconds(superlink.pid) - start[0], time.monotonic() - start[1]
            result["idle_cores"] = used / seconds
            result["online_when_idle"] = len(control.online())
        return result
    finally:
        for process in processes:
            process.communicate(b"")
        control.close()
        superlink.stop()


def _wait(condition: Any) -> None:
    while not condition():
        time.sleep(0.1)


def _seconds(pids: Any) -> float:
    """Processor seconds that processes have used."""
    total = 0.0
    for pid in pids if isinstance(pids, list) else [pids]:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _megabytes(pid: Any) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--some"]:
        folder, address, authority, first, count, *leaving = sys.argv[2:]
        plants(Path(folder), address, Path(authority), int(first), int(count), bool(leaving))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plants", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--idle", type=float, default=0.0, help="seconds to measure without rounds")
    parser.add_argument("--leaving", action="store_true", help="a third leaves and comes back all the time")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parent), *filter(None, sys.path)]
    )
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), given)
    print(json.dumps(result, indent=2))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
