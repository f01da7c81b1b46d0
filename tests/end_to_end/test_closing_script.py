"""The operator's path from an empty folder to a published version, with a plant and the server killed on the
way: real pictures where they are, the base model that ships, nothing but the commands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from federation_parts import Federation, Process
from link_parts import PATIENCE
from neu_parts import deal

from fedserver.storage.run_store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PLANTS = ["plant-a", "plant-b"]
PICTURES = 15  # of each class at each plant
ROUNDS = 5


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("closing")
    classes, _ = deal(folder, PLANTS, PICTURES)
    made = Federation(folder)
    made.set(base="default", classes=classes)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(federation: Federation) -> Process:
    """The server after five rounds, in which a plant and it itself were killed and came back."""
    first = federation.start("--rounds", str(ROUNDS))
    plants = {name: federation.join(name, federation.invite(name)) for name in PLANTS}
    first.wait_for("round 1 closed")
    plants["plant-b"].kill()
    plants["plant-b"] = federation.join("plant-b")
    plants["plant-b"].wait_for("joined: at")
    first.wait_for("round 2 closed")
    first.kill()
    second = federation.start("--rounds", str(ROUNDS))
    second.wait_for("all rounds are done")
    return second


def listed(federation: Federation) -> List[Dict[str, Any]]:
    answer = federation.fedserver("models", "list", "--json")
    assert answer.returncode == 0, answer.stderr
    rows: List[Dict[str, Any]] = json.loads(answer.stdout)
    return rows


def test_every_round_is_in_the_history_once(federation: Federation, server: Process) -> None:
    assert federation.rounds() == list(range(1, ROUNDS + 1))
    rows = federation.plants()
    assert set(rows) == set(PLANTS)
    assert {row["state"] for row in rows.values()} == {"joined"}
    assert all(row["last round"] is not None for row in rows.values())


def test_a_version_is_published_and_the_server_stays_to_hand_it_out(
    federation: Federation, server: Process
) -> None:
    server.wait_for("published")
    assert [row["state"] for row in listed(federation)] == ["published"]
    card = json.loads(federation.fedserver("models", "show", "--json").stdout)
    (run,) = (federation.workspace / "runs").glob("run-*")
    store = RunStore(run)
    accuracy = {number: known.mean["accuracy"] for number, known in store.evaluations().items()}
    assert set(accuracy) == set(range(ROUNDS + 1))
    assert accuracy[card["rounds"]] == max(accuracy.values())  # 0 is the closed form
    assert set(card["metrics"]["plants"]) == set(PLANTS)
    assert server.process.poll() is None


def test_the_report_is_one_page_that_needs_nothing_else(
    federation: Federation, server: Process, tmp_path: Path
) -> None:
    answer = federation.fedserver("report", "--output", str(tmp_path), "--open-nothing")
    assert answer.returncode == 0, answer.stderr
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(plant in text for plant in PLANTS)
    assert "http://" not in text.replace("http://www.w3.org", "") and "<script src" not in text


def test_the_server_ends_when_it_is_told_to_and_leaves_nothing(
    federation: Federation, server: Process
) -> None:
    assert federation.fedserver("stop").returncode == 0
    assert server.process.wait(PATIENCE) == 0
    assert federation.leftovers() == []
