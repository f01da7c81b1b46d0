"""A ServerApp for tests: sends a payload to every plant and compares what comes back."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Dict, List

from flwr.common import Context
from flwr.serverapp import Grid, ServerApp

from fedserver.flower.transport import SuperLinkTransport
from fedspect.protocol.messages import TRAIN

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    transport = SuperLinkTransport(grid)
    plants, rounds = int(config["plants"]), int(config.get("rounds", 1))
    payload = os.urandom(int(config.get("bytes", 2_000_000)))
    asked = {"seconds": float(config.get("seconds", 0.0)), "fail": bool(config.get("fail"))}
    task = json.dumps(asked).encode() + b"\n" + payload
    deadline = time.monotonic() + 200.0
    while len(transport.nodes()) < plants and time.monotonic() < deadline:
        time.sleep(0.05)
    seconds: List[float] = []
    results: List[Dict[str, Any]] = []
    for number in range(rounds):
        started = time.perf_counter()
        nodes = sorted(transport.nodes())
        sent = transport.send(nodes, TRAIN, task, lifetime=3600.0, group=str(number))
        waiting = dict(zip(sent, nodes))
        while waiting and time.monotonic() < deadline:
            for reply in transport.receive([one for one in waiting if one is not None]):
                result = {"good": reply.body == payload, "error": reply.failure or ""}
                results.append({"round": number, "plant": waiting.pop(reply.message), **result})
            time.sleep(0.02)
        seconds.append(time.perf_counter() - started)
    content = {"seconds": seconds, "results": results, "missing": len(waiting)}
    Path(str(config["out"])).write_text(json.dumps(content))
