"""What a round costs before anybody trains: real processes, TLS, node keys, a payload each way.

Headquarters' SuperLink, two plants' nodes with an echo for a worker, and a ServerApp that sends a
payload to all and waits for all, as `fedserver` and `fedclient` run them but without worker and round loop.
Printed are median and worst of the rounds in seconds, with Flower's own pause for objects under way and
with ours, and each process's memory. The ratio of the two is what to compare between machines.

    python benchmarks/link_round.py --plants 2 --rounds 50 --bytes 2000000
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, Union

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.common import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.primitives.asymmetric import private_key_to_bytes, public_key_to_bytes

from fedclient.node.flower.fleet_node import FleetNode
from fedclient.node.flower.message_journal import MessageJournal
from fedclient.node.message_handler import Answer
from fedserver.flower.control_api import thin_bundle
from fedserver.flower.grid import NonBlockingGrid
from fedserver.flower.superlink import SuperLink, free_port
from fedserver.flower.transport import GridTransport
from fedserver.workspace import Workspace, create
from fedspect.protocol.messages import TRAIN

app = ServerApp()


@app.main()
def rounds(grid: Grid, context: Context) -> None:
    """Send a payload to all plants and wait for all, so many times; write how long each took."""
    config = context.run_config
    transport = GridTransport(NonBlockingGrid(grid) if config["quick"] else grid)
    while len(transport.nodes()) < int(config["plants"]):
        time.sleep(0.05)
    payload, seconds = os.urandom(int(config["bytes"])), []
    for number in range(int(config["rounds"])):
        started = time.perf_counter()
        waiting = {
            transport.send(node, TRAIN, payload, lifetime=3600.0, group=str(number))
            for node in transport.nodes()
        }
        while waiting:
            for reply in transport.receive([one for one in waiting if one is not None]):
                waiting.discard(reply.message)
                assert reply.body == payload
            time.sleep(0.05)
        seconds.append(time.perf_counter() - started)
    Path(str(config["out"])).write_text(json.dumps(seconds), encoding="utf-8")


def node(address: str, authority: str, key: str) -> None:
    """A plant's node until its standard input closes."""
    stop = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    private = load_pem_private_key(Path(key).read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    FleetNode(
        [address],
        Path(authority).read_bytes(),
        private,
        lambda kind, body: Answer(body),
        MessageJournal(Path(key).with_suffix(".message")),
    ).run(stop)


def measure(folder: Path, plants: int, count: int, size: int) -> dict[str, Any]:
    """Bring everything up, measure with and without quick pulls, take it down."""
    create(folder / "hq", ["localhost"])
    workspace = Workspace.open(folder / "hq")
    superlink = SuperLink(workspace.state / "flower", workspace.authority, workspace.logs / "superlink.log")
    port = free_port()
    started = time.perf_counter()
    superlink.start("127.0.0.1", port)
    result: dict[str, Any] = {"superlink_up": time.perf_counter() - started}
    control = superlink.control()
    nodes = []
    try:
        for number in range(plants):
            key = ec.generate_private_key(ec.SECP384R1())
            path = folder / f"key-{number}"
            path.write_bytes(private_key_to_bytes(key))
            control.register(public_key_to_bytes(key.public_key()).decode())
            command = [sys.executable, __file__, "--node", f"localhost:{port}"]
            command += [str(workspace.authority.certificate_path), str(path)]
            nodes.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        for name, quick, rounds_of_it in (("ours", True, count), ("flower", False, max(5, count // 4))):
            out = folder / name
            config: Dict[str, Union[str, int, float, bool]] = {
                "plants": plants,
                "bytes": size,
                "rounds": rounds_of_it,
                "quick": quick,
                "out": str(out),
            }
            run = control.submit(thin_bundle("link_round", config), {})
            superlink.start_serverapp()
            while not control.state(run).over:
                time.sleep(0.2)
            seconds = json.loads(out.read_text(encoding="utf-8"))
            result[name] = {
                "median": statistics.median(seconds),
                "worst": max(seconds),
                "rounds": len(seconds),
            }
        result["megabytes"] = {"superlink": _megabytes(superlink.pid), "node": _megabytes(nodes[0].pid)}
    finally:
        for process in nodes:
            process.communicate(b"")
        control.close()
        superlink.stop()
    result["ratio"] = result["flower"]["median"] / result["ours"]["median"]
    return result


def _megabytes(pid: int | None) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    return 0


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--node"]:
        node(*sys.argv[2:5])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plants", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--bytes", type=int, default=2_000_000)
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parent), *filter(None, sys.path)]
    )
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), given.plants, given.rounds, given.bytes), indent=2))


if __name__ == "__main__":
    main()
