"""A disk that is full to the last block, at headquarters and at a plant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_parts import PATIENCE, TinyFederation, fill, small_disk, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DISK_FULL = 51
PLANTS = ("plant-a", "plant-b")


def test_headquarters_ends_with_the_reason_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24) as disk:
        federation = TinyFederation(tmp_path, disk=disk)
        try:
            federation.begin(*PLANTS)
            federation.wait_for_rounds(2)
            ballast = fill(disk)
            assert federation.server.process.wait(PATIENCE) == DISK_FULL, federation.server.said
            assert "no space left" in federation.server.said
            assert "Traceback" not in federation.server.said
            assert not federation.leftovers()
            federation.check_history()
            ballast.unlink()
            federation.start()
            federation.well(PLANTS)
            federation.check_history()
        finally:
            federation.close()


def test_a_plant_without_space_fails_its_rounds_and_takes_part_again_when_there_is(
    federation: TinyFederation, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 700) as disk:
        federation.home("fourth").symlink_to(disk, target_is_directory=True)
        node = federation.plant("fourth", str(federation.token("fourth")))
        node.wait_for("joined: at")
        federation.wait_for_event("RoundStarted", "fourth")
        since = federation.mark()
        ballast = fill(disk)

        def lost_for_space() -> Any:
            """Every look fills the disk again: an answered message leaves room enough for tiny work."""
            fill(disk)
            lost = [row for row in federation.events("PlantLost", since) if row["plant"] == "fourth"]
            return any("no space left" in row["reason"].lower() for row in lost)

        wait_for(lost_for_space, "a round without the plant, because its disk is full")
        federation.wait_for_rounds(2)
        assert node.process.poll() is None, node.said
        ballast.unlink()
        federation.well(["good-a", "good-b", "third", "fourth"])
        assert federation.fedserver("plants", "revoke", "fourth").returncode == 0
        assert node.process.wait(PATIENCE) == 64
