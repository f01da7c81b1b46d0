"""The whole way of a model: trained by two plants, published, gated and swapped at both lines under load; a
poisoned version is stopped at both gates; both plants go back.
"""

from __future__ import annotations

import json
import shutil
from typing import Any, Dict, Iterator

import numpy as np
import pytest
from federation_parts import Federation, Process
from line_client import Load, classes_told
from link_parts import wait_for
from neu_parts import deal

from fedserver.flower.superlink import free_port
from fedserver.registry.base_files import DEFAULT_FOLDER
from fedserver.registry.versions import VersionRegistry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PLANTS = ["plant-a", "plant-b"]
PICTURES = 12  # of each class at each plant


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("line")
    classes, _ = deal(folder, PLANTS, PICTURES)
    made = Federation(folder, rounds=3)
    shutil.rmtree(folder / "base")
    shutil.copytree(DEFAULT_FOLDER, folder / "base")
    made.set(
        classes=classes, local_epochs=2, start="fresh"
    )  # each run of rounds is to end in another version
    yield made
    made.close()


def deployed(federation: Federation, number: int) -> Dict[str, Dict[str, Any]]:
    """What became of a version at each plant, once headquarters knows it of all."""

    def look() -> Dict[str, Dict[str, Any]]:
        rows = federation.plants()
        told = {name: row["deployments"][-1]["report"] for name, row in rows.items() if row["deployments"]}
        return told if all(told.get(name, {}).get("number") == number for name in PLANTS) else {}

    return wait_for(look, f"word of version {number} from both plants")


def serve(federation: Federation, plant: str) -> str:
    address = f"127.0.0.1:{free_port()}"
    words = ("fedclient.cli", "serve", "--address", address, "--no-http")
    log = federation.folder / f"{plant}-line.log"
    federation.processes.append(Process(log, *words, home=federation.home(plant)))
    return address


def goes_back(federation: Federation, plant: str, load: Load) -> None:
    """Roll back by the command, and see that the line answers with what it ran before."""
    back = federation.fedclient(plant, "engines", "rollback")
    assert back.returncode == 0, back.stderr
    before = load.versions["1"]
    wait_for(lambda: load.versions["1"] > before, f"answers of version 1 at {plant}")


def poison(models: VersionRegistry) -> int:
    """Publish what no honest round makes: the classifier's rows in another order."""
    good = models.versions()[-1]
    head = {name: np.array(values) for name, values in good.head().items()}
    for name in ("classifier.weight", "classifier.bias"):
        head[name] = np.roll(head[name], 1, axis=0)
    facts = good.card.model_dump(exclude={"number", "content_hash", "parent", "created"})
    version, new = models.add(head, **{**facts, "note": "poisoned"})
    assert new
    return int(version.card.number)


def test_from_a_token_to_the_line_and_back(federation: Federation) -> None:
    server = federation.start()
    for plant in PLANTS:
        federation.join(plant, federation.invite(plant))
    server.wait_for("version 1")
    first = deployed(federation, 1)
    assert {name: told["outcome"] for name, told in first.items()} == dict.fromkeys(PLANTS, "activated"), (
        first
    )

    addresses = {plant: serve(federation, plant) for plant in PLANTS}
    pictures = {plant: sorted((federation.folder / f"pictures-{plant}").rglob("*.*g")) for plant in PLANTS}
    with Load(addresses["plant-a"], pictures["plant-a"]) as a, Load(
        addresses["plant-b"], pictures["plant-b"]
    ) as b:
        loads = (a, b)
        for load in loads:
            load.wait_for_version(1)

        # Three more rounds, a second version, and both lines change over while they answer.
        assert federation.fedserver("stop").returncode == 0
        server = federation.start("--rounds", "6")
        server.wait_for("version 2")
        second = deployed(federation, 2)
        assert {told["outcome"] for told in second.values()} == {"activated"}, second
        for load in loads:
            load.wait_for_version(2)

        # A version that answers wrongly is stopped at both gates, with the reason at headquarters.
        poisoned = poison(VersionRegistry(federation.workspace / "models"))
        third = deployed(federation, poisoned)
        assert {told["outcome"] for told in third.values()} == {"refused"}, third
        assert all(told["reasons"] for told in third.values())
        for load in loads:
            assert load.answers_of(2) > 0
            assert load.versions[str(poisoned)] == 0

        # A plant goes back at once and by itself; then the other does.
        goes_back(federation, "plant-a", a)
        assert b.answers_of(2) > 0
        goes_back(federation, "plant-b", b)
        returned = deployed(federation, 1)
        assert {told["outcome"] for told in returned.values()} == {"rolled-back"}, returned
        for load in loads:
            assert load.errors == []

    for plant in PLANTS:
        told = classes_told(addresses[plant], pictures[plant])
        right = sum(path.parent.name == name for path, name in zip(pictures[plant], told))
        assert right / len(told) > 0.6
    for plant in PLANTS:
        listed = federation.fedclient(plant, "engines", "list", "--json")
        assert listed.returncode == 0, listed.stderr
        assert json.loads(listed.stdout)["history"][-1]["event"] == "rolled back"
