"""From an empty folder to finished rounds with nothing but the commands, and what happens when parts are
killed.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Iterator

import pytest
from federation_parts import Federation, Process
from link_parts import PATIENCE, wait_for

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    made = Federation(tmp_path_factory.mktemp("federation"), rounds=2, start="fresh")
    yield made
    made.close()


@pytest.fixture(scope="module")
def plants(federation: Federation) -> dict[str, Process]:
    """Two plants that were told to join before there was a server."""
    tokens = {name: federation.invite(name) for name in ("plant-a", "plant-b")}
    return {name: federation.join(name, token, seed=n) for n, (name, token) in enumerate(tokens.items())}


def test_two_plants_join_with_a_token_and_finish_the_rounds(
    federation: Federation, plants: dict[str, Process]
) -> None:
    plants["plant-a"].wait_for("trying again")
    server = federation.start("--until-done")
    for plant in plants.values():
        plant.wait_for("joined: at localhost")
    server.wait_for("all rounds are done")
    assert server.process.wait(PATIENCE) == 0
    assert federation.rounds() == [1, 2]
    rows = federation.plants()
    assert {row["state"] for row in rows.values()} == {"joined"}
    assert {row["pictures"] for row in rows.values()} == {24}
    assert {row["last round"] for row in rows.values()} == {2}
    assert federation.leftovers() == []


def test_names_of_pictures_stay_at_the_plant(federation: Federation, plants: dict[str, Process]) -> None:
    content = (federation.workspace / "registry" / "plants.json").read_text()
    assert '"striped": 12' in content
    assert ".png" not in content and "pictures-plant" not in content


@pytest.mark.slow
def test_a_plant_killed_between_rounds_comes_back_without_a_token(
    federation: Federation, plants: dict[str, Process]
) -> None:
    server = federation.start("--rounds", "6", "--until-done")
    server.wait_for("round 3 closed")
    plants["plant-b"].kill()
    plants["plant-b"] = federation.join("plant-b")
    plants["plant-b"].wait_for("joined: at localhost")
    server.wait_for("all rounds are done")
    assert server.process.wait(PATIENCE) == 0
    assert federation.rounds() == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_killed_server_goes_on_with_the_next_round(
    federation: Federation, plants: dict[str, Process]
) -> None:
    server = federation.start("--rounds", "12", "--until-done")
    server.wait_for("round 8 closed")
    server.kill()
    again = federation.start("--rounds", "12", "--until-done")
    again.wait_for("all rounds are done")
    assert again.process.wait(PATIENCE) == 0
    assert federation.rounds() == list(range(1, 13))
    assert federation.leftovers() == []


@pytest.mark.slow
def test_a_killed_superlink_or_serverapp_is_started_again(
    federation: Federation, plants: dict[str, Process]
) -> None:
    server = federation.start("--rounds", "20", "--until-done")
    server.wait_for("round 13 closed")
    for pid in federation.leftovers():
        if b"serverapp_process" in (Path("/proc") / str(pid) / "cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    server.wait_for("the rounds were cut")
    done = len(federation.rounds())
    wait_for(lambda: len(federation.rounds()) > done, "another round")
    running = json.loads((federation.workspace / "state" / "running.json").read_text())
    os.kill(running["superlink"], signal.SIGKILL)
    server.wait_for("SuperLink died")
    server.wait_for("all rounds are done")
    assert server.process.wait(PATIENCE) == 0
    assert federation.rounds() == list(range(1, 21))


@pytest.mark.slow
def test_a_server_that_stays_serves_the_version_and_hears_what_became_of_it(
    federation: Federation, plants: dict[str, Process]
) -> None:
    server = federation.start("--rounds", "20")
    server.wait_for("staying for plants")
    before = json.loads(federation.fedserver("models", "list", "--json").stdout)
    assert (before[-1]["round"], before[-1]["state"]) == (20, "published")
    number = before[-1]["version"]

    def reported() -> bool:
        rows = federation.plants().values()
        return all(any(each["report"]["number"] == number for each in row["deployments"]) for row in rows)

    wait_for(reported, "a report of both plants")
    assert federation.fedserver("models", "retire", str(number), "--reason", "a test").returncode == 0
    server.wait_for(f"plants are given version {number - 1} (")
    assert federation.fedserver("report", "--open-nothing").returncode == 0
    page = (federation.workspace / "reports" / "run-0001" / "report.html").read_text()
    assert "plant-a" in page and "retired: a test" in page
    assert federation.fedserver("stop").returncode == 0
    assert server.process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_a_second_start_and_a_second_join_are_refused_by_name(
    federation: Federation, plants: dict[str, Process]
) -> None:
    server = federation.start("--no-rounds")
    server.wait_for("plants may join")
    second = federation.fedserver("start")
    assert second.returncode == 62
    assert f"process {server.process.pid} on " in second.stderr
    twice = federation.fedclient("plant-a", "join")
    assert twice.returncode == 62
    assert f"process {plants['plant-a'].process.pid} on " in twice.stderr
    assert federation.fedserver("stop").returncode == 0
    assert server.process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_a_revoked_plant_ends_with_the_reason(federation: Federation, plants: dict[str, Process]) -> None:
    server = federation.start("--no-rounds")
    server.wait_for("plant-b is online")
    assert federation.fedserver("plants", "revoke", "plant-b").returncode == 0
    assert plants["plant-b"].process.wait(PATIENCE) == 64
    assert "this plant was revoked" in plants["plant-b"].said
    assert federation.plants()["plant-b"]["state"] == "revoked"
    again = federation.fedclient("plant-b", "join")
    assert again.returncode == 64
    status = json.loads(federation.fedclient("plant-b", "status", "--json").stdout)
    assert status["status"]["state"] == "refused"


@pytest.mark.slow
def test_a_plant_leaves_for_good(federation: Federation, plants: dict[str, Process]) -> None:
    server = federation.processes[-1]
    assert federation.fedclient("plant-a", "leave").returncode == 0
    assert plants["plant-a"].process.wait(PATIENCE) == 0
    assert federation.plants()["plant-a"]["state"] == "left"
    assert not (federation.home("plant-a") / "node.key").exists()
    assert federation.fedclient("plant-a", "join").returncode == 61
    assert server.end() == 0
