"""Plants whose device is the line's for a while: rounds go on, headquarters says why, and they come back."""

from __future__ import annotations

import time

import pytest
from tiny_parts import TinyFederation, descendants, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_paused_plant_is_done_without_over_restarts_and_takes_part_again_when_resumed(
    federation: TinyFederation,
) -> None:
    since, before = federation.mark(), federation.last()
    assert federation.fedclient("third", "pause").returncode == 0
    federation.wait_for_event("PlantLost", "paused by the plant's engineer", since=since)
    last = federation.wait_for_rounds(2)
    assert {one.plant for one in federation.records(last - 1)[0].plants} == {"good-a", "good-b"}
    assert last > before + 1
    wait_for(lambda: federation.plants()["third"]["state"] == "paused", "paused in the list of plants")
    node = federation.plant_processes["third"].process.pid
    wait_for(lambda: descendants(node) == [node], "the end of the worker's process")

    federation.kill_plant("third")
    since = federation.mark()
    federation.plant("third").wait_for("joined: at")
    federation.wait_for_event("PlantLost", "paused by the plant's engineer", since=since)

    assert federation.fedclient("third", "resume").returncode == 0
    federation.well(("good-a", "good-b", "third"))
    wait_for(lambda: federation.plants()["third"]["state"] == "joined", "joined in the list of plants")


def test_hours_that_an_engineer_writes_while_the_plant_runs_hold_at_once(federation: TinyFederation) -> None:
    settings = federation.home("third") / "plant.toml"
    text = settings.read_text()
    later = [time.strftime("%H:%M", time.localtime(time.time() + 3600 * hours)) for hours in (3, 4)]
    since = federation.mark()
    settings.write_text(text.replace("hours = []", f'hours = ["{later[0]}-{later[1]}"]'))
    try:
        lost = federation.wait_for_event("PlantLost", f"its hours are {later[0]}-{later[1]}", since=since)
        assert f"again at {later[0]}" in lost["text"]
        federation.wait_for_rounds(1)
    finally:
        settings.write_text(text)
