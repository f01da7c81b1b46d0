"""A plant's node with an echo for a handler: address, authority, folder and clock offset on the command
line.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedclient.node.flower.fleet_node import FleetNode, NotRecognisedError, Pace
from fedclient.node.flower.message_store import MessageStore
from fedclient.node.message_handler import MessageHandler


class Echo:
    def work(self, task: bytes) -> bytes:
        head, _, payload = task.partition(b"\n")
        asked = json.loads(head)
        time.sleep(asked["seconds"])
        if asked["fail"]:
            raise RuntimeError("the press is stuck")
        return payload

    def describe(self) -> bytes:
        return b""


def main() -> int:
    address, authority, folder, clock_offset = sys.argv[1:]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    key = load_pem_private_key((Path(folder) / "key").read_bytes(), None)
    remembered = Path(folder) / "node_id"
    node = FleetNode(
        [address],
        Path(authority).read_bytes(),
        key,
        MessageHandler(Echo),
        MessageStore(Path(folder) / "message"),
        clock_offset=float(clock_offset),
        node_id=int(remembered.read_text()) if remembered.exists() else None,
        pace=Pace(first_retry=0.1, longest_retry=0.5),
    )

    def say(state: str, detail: str) -> None:
        if state == "joined":
            remembered.write_text(str(node.node_id))
        print(state, detail.replace("\n", " "), sep="\t", flush=True)

    node.on_state = say
    try:
        node.run(stop)
    except NotRecognisedError as error:
        say("refused", str(error))
        return 3
    say("stopped", "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
