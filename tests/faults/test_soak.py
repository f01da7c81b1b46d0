"""Three plants, a hundred rounds, and something killed again and again: only with ``--run-soak``.

What is killed and when follows from ``SOAK_SEED`` (0 if not set). After a kill the next round is waited for
before the next kill, so a fault that stops the federation is not hidden by the one after it.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Callable, Dict

import pytest
from tiny_parts import TinyFederation, wait_for
from tiny_worker import Behaviour

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

PLANTS = ("plant-a", "plant-b", "plant-c")
ROUNDS = 100
LONGEST = 900.0  # seconds
WORK = 0.3


class Killer:
    """Kills a part, and brings it back where nobody else does."""

    def __init__(self, federation: TinyFederation, draw: random.Random) -> None:
        self._federation = federation
        self._draw = draw
        self._ways: Dict[str, Callable[[], None]] = {
            "node": self._node,
            "worker": self._worker,
            "serverapp": lambda: os.kill(federation.serverapp(), 9),
            "superlink": self._superlink,
            "server": self._server,
        }

    def strike(self) -> str:
        """Kill something; what it was."""
        name = self._draw.choice(sorted(self._ways))
        self._ways[name]()
        return name

    def _node(self) -> None:
        plant = self._draw.choice(PLANTS)
        self._federation.kill_plant(plant)
        time.sleep(self._draw.uniform(0.0, 3.0))
        self._federation.plant(plant)

    def _worker(self) -> None:
        plant = self._draw.choice(PLANTS)
        mark = self._federation.home(plant) / "at-work"

        def killed() -> bool:
            try:
                os.kill(int(mark.read_text().split()[0]), 9)
            except (FileNotFoundError, IndexError, ProcessLookupError):
                return False  # it is not at work just now
            return True

        wait_for(killed, f"a worker of {plant} to kill")

    def _superlink(self) -> None:
        running = json.loads(self._federation.opened.running_path.read_text())
        os.kill(running["superlink"], 9)

    def _server(self) -> None:
        self._federation.server.kill()
        self._federation.start()


def test_a_hundred_rounds_of_random_kills_hold_every_round_once(tmp_path: Path) -> None:
    seed = int(os.environ.get("SOAK_SEED", "0"))
    draw = random.Random(seed)
    federation = TinyFederation(tmp_path, deadline=20.0, gather=0.0, retry=5.0, expected_plants=3)
    began, kills, longest = time.monotonic(), Counter[str](), 0.0
    try:
        federation.begin(*PLANTS, behaviour=Behaviour(seconds=WORK))
        federation.wait_for_rounds(1)
        killer = Killer(federation, draw)
        while federation.last() < ROUNDS and time.monotonic() - began < LONGEST:
            struck, before = time.monotonic(), federation.last()
            kills[killer.strike()] += 1
            wait_for(lambda last=before: federation.last() > last, "a round after a kill")  # type: ignore[misc]
            longest = max(longest, time.monotonic() - struck)
            time.sleep(draw.uniform(0.0, 3.0))
        rounds = federation.last()
        federation.server.end()
        federation.check_history()
        lost = sum(len(record.lost) for record in federation.run.history())
        used = sum(len(record.plants) for record in federation.run.history())
        print(
            f"seed {seed}: {rounds} rounds in {time.monotonic() - began:.0f} s, {sum(kills.values())} kills "
            f"({', '.join(f'{number} of a {name}' for name, number in sorted(kills.items()))}); "
            f"{used} updates used, {lost} lost; longest from a kill to the next round {longest:.0f} s"
        )
        assert rounds >= ROUNDS, f"{rounds} rounds within {LONGEST:.0f} s"
    finally:
        federation.close()
