"""The ServerApp is killed before every single change that it makes to the disk from one round to the next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest
from tiny_parts import TinyFederation, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PLANTS = ("plant-a", "plant-b")


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyFederation]:
    made = TinyFederation(tmp_path, program="dying_server")
    monkeypatch.setenv("DYING_RUN", str(made.run.folder))
    monkeypatch.setenv("DYING_PLAN", str(tmp_path / "plan"))
    yield made
    made.close()


def test_a_serverapp_killed_before_any_change_of_the_disk_loses_and_repeats_nothing(
    federation: TinyFederation,
) -> None:
    plan, seen = federation.folder / "plan", federation.folder / "plan.seen"
    federation.begin(*PLANTS)
    wait_for(seen.exists, "two rounds")
    changes = seen.read_text().splitlines()
    closing = changes.index(next(each for each in changes if each.startswith("os.rename 0")))
    assert {"open head.safetensors", "open round.json", "open history.jsonl"} <= set(changes)
    plan.write_text("\n".join(str(number) for number in range(1, len(changes) + 1)))
    os.kill(federation.serverapp(), 9)
    for left in reversed(range(len(changes))):
        wait_for(lambda n=left: len(plan.read_text().split()) <= n, f"the start that leaves {left}")  # type: ignore[misc]
    wait_for(lambda: federation.server.said.count("going on") > len(changes), "the last death")
    federation.wait_for_rounds(2)
    federation.check_history()
    assert federation.server.process.poll() is None
    assert 0 < closing < len(changes)
