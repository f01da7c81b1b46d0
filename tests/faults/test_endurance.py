"""A year of work in one night: ten thousand tiny rounds, certificates renewed on the way; only with ``--run-soak``.

``ENDURANCE_ROUNDS`` says how many. What is kept on disk besides the record of each round, memory and open files must
be as large at the end as after the first tenth; what they were is printed.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Dict, List, NamedTuple

import psutil
import pytest
from tiny_parts import TinyFederation, wait_for

from fedspect import files

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

ROUNDS = int(os.environ.get("ENDURANCE_ROUNDS", "10050"))
RENEWALS = 12
MEBI = 1 << 20


class Sample(NamedTuple):
    """What one part takes."""

    memory: float  # MiB
    files: int


class Endurance(NamedTuple):
    """Everything at one moment."""

    round: int
    at: float
    parts: Dict[str, Sample]
    workspace: float  # MiB without the run
    run: float
    home: float


def size(folder: Path, *, without: str = "") -> float:
    """MiB of a folder whose files come and go."""
    total = 0
    for place, folders, names in os.walk(folder):
        if without in folders:
            folders.remove(without)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(place, name).lstat().st_size
    return total / MEBI


def look(federation: TinyFederation) -> Endurance:
    """The parts may be starting anew just now: then a moment later."""

    def parts() -> Dict[str, Sample]:
        try:
            running = files.read_json(federation.opened.running_path)
            node = federation.plant_processes["plant-a"].process.pid
            (worker,) = psutil.Process(node).children()
            pids = {
                "server": running["pid"],
                "superlink": running["superlink"],
                "serverapp": federation.serverapp(),
                "node": node,
                "worker": worker.pid,
            }
            found = {name: psutil.Process(pid) for name, pid in pids.items()}
            return {name: Sample(one.memory_info().rss / MEBI, one.num_fds()) for name, one in found.items()}
        except (psutil.Error, OSError, ValueError, KeyError):
            return {}

    found: Dict[str, Sample] = wait_for(parts, "every part to run")
    return Endurance(
        federation.last(),
        time.monotonic(),
        found,
        size(federation.workspace, without="runs"),
        size(federation.run.folder),
        size(federation.home("plant-a")),
    )


def test_a_year_of_rounds_leaves_memory_open_files_and_logs_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOK_CERTIFICATE", "1e9")  # until it is known how long a round takes
    federation = TinyFederation(
        tmp_path, quorum=1, deadline=60.0, gather=0.0, expected_plants=1, keep_heads=3
    )
    federation.program = "hasty_certificates"
    seen: List[Endurance] = []
    try:
        federation.begin("plant-a")
        warm = max(20, ROUNDS // 10)
        began = time.monotonic()
        reach(federation, warm)
        seen.append(look(federation))
        pace = (time.monotonic() - began) / warm
        federation.server.end()
        monkeypatch.setenv("LOOK_CERTIFICATE", str(max(60.0, pace * (ROUNDS - warm) / RENEWALS)))
        federation.start()
        for step in range(2, 11):
            reach(federation, ROUNDS * step // 10)
            seen.append(look(federation))
        renewed = federation.server.said.count("a new server certificate was issued")
        federation.server.end()
        federation.check_history()
        for one in seen:
            parts = ", ".join(
                f"{name} {part.memory:.0f} MiB {part.files} files" for name, part in one.parts.items()
            )
            print(
                f"round {one.round} after {one.at - began:.0f} s: {parts}; workspace {one.workspace:.1f} MiB, "
                f"run {1024 * one.run / one.round:.1f} KiB a round, plant {one.home:.1f} MiB"
            )
        print(f"{renewed} certificates were issued")
        first, last = seen[0], seen[-1]
        assert last.round >= ROUNDS and renewed >= 1
        for name, part in last.parts.items():
            before = first.parts[name]
            assert part.memory <= 1.25 * before.memory + 32, (name, before, part)
            assert part.files <= before.files + 16, (name, before, part)
        assert last.workspace <= first.workspace + 32 and last.home <= first.home + 32
    finally:
        federation.close()


def reach(federation: TinyFederation, number: int) -> None:
    """Wait for a round; only that nothing is closed for long is a failure."""
    while (before := federation.last()) < number:
        wait_for(lambda last=before: federation.last() > last, "another round")  # type: ignore[misc]
        time.sleep(0.5)
