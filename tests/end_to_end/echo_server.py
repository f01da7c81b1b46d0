"""A ServerApp for tests: sends a payload to every plant and compares what comes back."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Dict, List

from flwr.common import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedserver.flower.grid import NonBlockingGrid

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    grid = NonBlockingGrid(grid, stalled_after=10.0)
    plants, rounds = int(config["plants"]), int(config.get("rounds", 1))
    payload = os.urandom(int(config.get("bytes", 2_000_000)))
    deadline = time.monotonic() + 200.0
    while len(list(grid.get_node_ids())) < plants and time.monotonic() < deadline:
        time.sleep(0.05)
    seconds: List[float] = []
    results: List[Dict[str, Any]] = []
    for number in range(rounds):
        started = time.perf_counter()
        task = {
            "payload": payload,
            "seconds": float(config.get("seconds", 0.0)),
            "fail": bool(config.get("fail")),
        }
        messages = [
            Message(
                RecordDict({"task": ConfigRecord(task)}),
                dst_node_id=node,
                message_type="train",
                group_id=str(number),
            )
            for node in grid.get_node_ids()
        ]
        waiting = set(grid.push_messages(messages))
        while waiting and time.monotonic() < deadline:
            for reply in grid.pull_messages(list(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                good = reply.has_content() and reply.content["reply"]["payload"] == payload
                error = reply.error.reason if reply.has_error() else ""
                results.append(
                    {"round": number, "plant": reply.metadata.src_node_id, "good": good, "error": error}
                )
            time.sleep(0.02)
        seconds.append(time.perf_counter() - started)
    content = {"seconds": seconds, "results": results, "missing": len(waiting)}
    Path(str(config["out"])).write_text(json.dumps(content))
