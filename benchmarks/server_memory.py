"""The server's memory while it averages: 200 plants' updates against 10.

Each number of plants gets a process of its own. It spools that many answers with a change of model A's head
(int3), then does what closing a round does: check every one, measure its step, fold them into the mean.
Printed is the process's peak resident memory; the ratio is what counts. ``fedmedian`` holds them all and is
there to compare.

    python benchmarks/server_memory.py [--plants 10 200] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator

import numpy as np
from safetensors.numpy import load_file, save_file

CHILD = "--one"


def spooled(folder: Path, plants: int, head: Dict[str, np.ndarray]) -> Iterator[Any]:
    """So many answers on disk; the next is made when the one before is written."""
    from fedserver.aggregation.checking import Spooled
    from fedspect.update.checks import Expected
    from fedspect.update.encoding import encode
    from fedspect.update.round_messages import RoundReply
    from fedspect.update.schema import Schema, version_of

    schema, version, base = Schema.of(head), version_of(head), "ba5e" * 16
    for number in range(plants):
        draw = np.random.default_rng(number)
        change = {name: 1e-3 * draw.normal(size=v.shape).astype(np.float32) for name, v in head.items()}
        reply = RoundReply(
            plant=f"plant-{number}",
            run_id="a-run",
            round=1,
            base_hash=base,
            version=version,
            encoding="int3",
            num_examples=100,
            counts={"plain": 100},
            payload=encode(change, encoding="int3"),
        )
        path = folder / f"{number}.reply"
        path.write_bytes(reply.to_bytes())
        expected = Expected(reply.plant, "a-run", 1, base, version, schema, ("plain",))
        yield Spooled(expected, path)


def peak_kilobytes() -> int:
    """The most that this process ever held in memory (``getrusage`` would count its parent's, too)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def one(plants: int, strategy_name: str, head_file: str) -> Dict[str, Any]:
    """Average so many updates in this process, which holds no torch, as a ServerApp does not."""
    from fedserver.aggregation.aggregate import aggregate
    from fedserver.aggregation.checking import check_updates
    from fedserver.aggregation.registry import build_aggregator

    head = load_file(head_file)
    aggregator = build_aggregator(strategy_name)
    with tempfile.TemporaryDirectory() as folder:
        waiting = list(spooled(Path(folder), plants, head))
        before = peak_kilobytes()
        started = time.perf_counter()
        accepted, refused = check_updates(waiting, head)
        assert len(accepted) == plants and not refused
        aggregate(aggregator, 1, accepted)
        seconds = time.perf_counter() - started
    peak = peak_kilobytes()
    return {
        "plants": plants,
        "strategy": strategy_name,
        "peak": peak / 1024,
        "before": before / 1024,
        "seconds": seconds,
    }


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == [CHILD]:
        print(json.dumps(one(int(sys.argv[2]), sys.argv[3], sys.argv[4])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plants", type=int, nargs=2, default=[10, 200])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    given = parser.parse_args()
    from federation import head_of_model_a

    rows = []
    folder = tempfile.TemporaryDirectory()
    head_file = str(Path(folder.name) / "head.safetensors")
    save_file(head_of_model_a(), head_file)
    for strategy in ("fedavg", "fedmedian"):
        for plants in given.plants:
            asked = [sys.executable, __file__, CHILD, str(plants), strategy, head_file]
            rows.append(json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout))
            row = rows[-1]
            print(
                f"{strategy:10} {plants:4} plants: peak {row['peak']:.0f} MB ({row['before']:.0f} MB before), "
                f"{row['seconds']:.1f} s"
            )
        few, many = rows[-2:]
        print(
            f"{strategy:10} {many['plants']} against {few['plants']}: {many['peak'] / few['peak']:.2f} times"
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
