"""Versions that headquarters publishes, at a plant whose trainer and session a test plays."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from fedclient.node import version_updater as versions
from fedclient.node.home import PlantHome
from fedclient.node.node_status import NodeStatus
from fedclient.node.version_updater import (
    FIRST_RETRY,
    LONGEST_RETRY,
    LOOK_AT_ENGINES,
    VersionUpdater,
    line_version,
)
from fedclient.yield_policy import YieldPolicy
from fedspect.errors import ConnectionLostError, WorkerError
from fedspect.files import write_bytes, write_json
from fedspect.protocol.enrolment_pb2 import PublishedReply
from fedspect.protocol.versions import DeploymentReport

BASE = "ba" * 32


def version(number: int, base_hash: str = BASE) -> PublishedReply:
    return PublishedReply(number=number, version_hash=f"{number:02x}" * 32, base_hash=base_hash)


class Headquarters:
    """A session: what is published, what was fetched and what was reported."""

    def __init__(self) -> None:
        self.offer: Optional[PublishedReply] = None
        self.fetched: List[int] = []
        self.reports: List[Dict[str, Any]] = []
        self.reachable = True

    def published(self) -> Optional[PublishedReply]:
        return self.offer

    def fetch_version(self, home: PlantHome, version: PublishedReply) -> Path:
        self.fetched.append(version.number)
        folder = home.folder / "versions" / version.version_hash
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def report_deployment(self, report: DeploymentReport) -> None:
        if not self.reachable:
            raise ConnectionLostError("headquarters does not answer")
        self.reports.append(report.model_dump(mode="json"))

    @property
    def told(self) -> List[Any]:
        return [(report["number"], report["outcome"]) for report in self.reports]


class Trainer:
    """Deploys as it is told, and moves the line's pointer as the real one does."""

    def __init__(self, home: PlantHome) -> None:
        self.home = home
        self.outcome = "activated"
        self.error: Optional[Exception] = None
        self.deployed: List[int] = []

    def deploy(self, folder: str, number: int) -> bytes:
        self.deployed.append(number)
        if self.error is not None:
            raise self.error
        if self.outcome == "activated":
            move_line(self.home, number)
        reasons = [] if self.outcome == "activated" else ["two escapes more"]
        return json.dumps({"outcome": self.outcome, "reasons": reasons, "seconds": 3.5}).encode()


def move_line(home: PlantHome, number: int, event: str = "activated", who: str = "") -> None:
    serial = 1 + (line_version(home) or {"serial": 0})["serial"]
    move = {"version": f"{number:02x}" * 32, "number": number, "at": 1.0, "event": event, "who": who}
    write_bytes(home.folder / "engines" / "e" / "engine.onnx", b"an engine")
    facts = {"key": {"kind": "onnxruntime"}, "bytes": 9, "sha256": hashlib.sha256(b"an engine").hexdigest()}
    write_json(home.folder / "engines" / "e" / "engine.json", facts)
    write_json(home.folder / "deployments" / "records" / f"{number}.json", {"engines": {"whole": "e"}})
    pointer = {"current": str(number), "move": {**move, "serial": serial}}
    write_json(home.folder / "deployments" / "current.json", pointer)


class Plant:
    def __init__(self, folder: Path) -> None:
        self.home = PlantHome(folder)
        self.home.prepare()
        self.now = 1_000_000.0
        self.headquarters, self.worker = Headquarters(), Trainer(self.home)
        self.status, self.yield_policy = NodeStatus(self.home), YieldPolicy(folder)
        self.said: List[str] = []
        self.start()

    def start(self) -> None:
        """As a node that was started again: nothing is remembered but what is on the disk."""
        self.updater = VersionUpdater(
            self.home, self.worker, self.yield_policy, self.status, self.said.append, clock=lambda: self.now
        )

    def publish(self, number: int, base_hash: str = BASE) -> None:
        self.headquarters.offer = version(number, base_hash)
        self.look()

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.updater.look(self.headquarters, BASE)


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path / "home")


def test_a_published_version_is_fetched_deployed_once_and_reported_once(plant: Plant) -> None:
    plant.look()
    assert plant.worker.deployed == []
    plant.publish(1)
    plant.look(3)
    plant.start()
    plant.look(2)
    assert plant.worker.deployed == [1] and plant.headquarters.fetched == [1]
    assert plant.headquarters.told == [(1, "activated")]
    assert plant.headquarters.reports[0]["seconds"] == 3.5
    line = line_version(plant.home)
    assert line is not None and line["number"] == 1


def test_damaged_engines_of_the_line_are_built_again_after_a_restart_and_within_a_day(plant: Plant) -> None:
    plant.publish(1)
    engine = plant.home.folder / "engines" / "e" / "engine.onnx"
    engine.write_bytes(b"an engima")
    plant.look(3)
    assert plant.worker.deployed == [1]
    plant.start()
    plant.look(3)
    assert plant.worker.deployed == [1, 1] and engine.read_bytes() == b"an engine"
    (plant.home.folder / "deployments" / "current.json").write_bytes(b"{")
    plant.now += LOOK_AT_ENGINES
    plant.look(3)
    assert plant.worker.deployed == [1, 1, 1]


def test_damaged_engines_are_named_once_where_a_person_decides_and_while_the_plant_is_paused(
    plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    plant.publish(1)
    (plant.home.folder / "engines" / "e" / "engine.onnx").write_bytes(b"an engima")
    plant.start()
    plant.yield_policy.mark.put(since=plant.now)
    plant.look(3)
    plant.yield_policy.mark.remove()
    (plant.home.folder / "plant.toml").write_text("[versions]\nautomatic = false\n")
    plant.start()
    plant.look(3)
    assert plant.worker.deployed == [1] and plant.headquarters.fetched == [1]
    assert plant.status.facts["version"]["outcome"] == "activated"
    again, damaged = (record.getMessage() for record in caplog.records)
    assert "built again" in again and "engines build" in damaged and "is damaged" in damaged


def test_engines_of_another_version_than_the_published_one_are_not_the_nodes_to_mend(plant: Plant) -> None:
    plant.publish(1)
    plant.publish(2)
    move_line(plant.home, 1, "rolled back", who="anna")
    (plant.home.folder / "engines" / "e" / "engine.onnx").unlink()
    plant.start()
    plant.look(2)
    assert plant.worker.deployed == [1, 2]


def test_a_refused_version_is_never_tried_again_by_itself(plant: Plant) -> None:
    plant.worker.outcome = "refused"
    plant.publish(1)
    plant.now += 10 * LONGEST_RETRY
    plant.start()
    plant.look(3)
    plant.publish(2)
    plant.publish(1)
    assert plant.worker.deployed == [1, 2]
    assert plant.headquarters.told == [(1, "refused"), (2, "refused")]
    assert plant.status.facts["version"]["outcome"] == "refused"
    assert plant.status.facts["version"]["why"] == "two escapes more"


def test_a_version_that_failed_is_tried_again_after_longer_and_longer_pauses(plant: Plant) -> None:
    plant.worker.error = WorkerError("the worker dies over its work")
    plant.publish(1)
    assert plant.headquarters.reports[0]["reasons"] == ["the worker dies over its work"]
    pauses = []
    for _ in range(9):
        before, tries = plant.now, len(plant.worker.deployed)
        while len(plant.worker.deployed) == tries:
            plant.now += 20
            plant.start()
            plant.look()
        pauses.append(plant.now - before)
    assert pauses[:3] == pytest.approx([FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY], abs=20)
    assert pauses[-1] == pytest.approx(LONGEST_RETRY, abs=20)
    plant.worker.error = None
    plant.now += LONGEST_RETRY
    plant.look()
    assert plant.headquarters.told[-1] == (1, "activated")


def test_what_headquarters_did_not_hear_is_told_when_it_answers_again(plant: Plant) -> None:
    plant.headquarters.reachable = False
    with pytest.raises(ConnectionLostError):
        plant.publish(1)
    assert plant.worker.deployed == [1]
    plant.headquarters.reachable = True
    plant.start()
    plant.look(2)
    assert plant.worker.deployed == [1] and plant.headquarters.told == [(1, "activated")]


def test_a_rollback_by_hand_is_reported_and_not_undone(plant: Plant) -> None:
    plant.publish(1)
    plant.publish(2)
    move_line(plant.home, 1, "rolled back", who="anna")
    plant.look(3)
    assert plant.worker.deployed == [1, 2]
    assert plant.headquarters.told == [(1, "activated"), (2, "activated"), (1, "rolled-back")]
    assert "anna" in plant.headquarters.reports[-1]["reasons"][0]


def test_a_plant_goes_back_with_headquarters(plant: Plant) -> None:
    plant.publish(1)
    plant.publish(2)
    plant.publish(1)
    assert plant.worker.deployed == [1, 2, 1]
    line = line_version(plant.home)
    assert line is not None and line["number"] == 1


def test_nothing_is_deployed_while_the_plant_is_paused(plant: Plant) -> None:
    plant.yield_policy.mark.put(since=plant.now)
    plant.publish(1)
    assert plant.worker.deployed == [] and "paused" in plant.status.facts["version"]["why"]
    plant.yield_policy.mark.remove()
    plant.look()
    assert plant.worker.deployed == [1]


def test_a_plant_that_decides_itself_fetches_and_waits(plant: Plant) -> None:
    plant.yield_policy.file.path.write_text("[versions]\nautomatic = false\n")
    plant.publish(1)
    assert plant.headquarters.fetched == [1] and plant.worker.deployed == []
    assert "fedclient engines build" in plant.status.facts["version"]["why"]


def test_a_version_for_another_base_model_is_left_alone(plant: Plant) -> None:
    plant.publish(1, base_hash="cd" * 32)
    assert plant.headquarters.fetched == [] and plant.worker.deployed == []
    assert "base model" in plant.status.facts["version"]["why"]


def test_an_answer_that_is_no_report_is_a_failure(plant: Plant) -> None:
    plant.worker.outcome = "wonderful"
    plant.publish(1)
    assert plant.headquarters.told == [(1, "failed")]


def test_old_versions_leave_the_disk_and_the_one_on_the_line_stays(plant: Plant) -> None:
    plant.yield_policy.file.path.write_text("[versions]\nkeep = 2\n")
    plant.publish(1)
    plant.worker.outcome = "refused"
    for number in range(2, 7):
        plant.now += 1
        plant.publish(number)
    kept = {folder.name[:2] for folder in (plant.home.folder / "versions").iterdir() if folder.is_dir()}
    assert kept == {"01", "05", "06"}


@pytest.mark.parametrize("content", ["{", "[]", '{"move": {}}', '{"move": 3}'])
def test_a_damaged_pointer_is_no_version(plant: Plant, content: str) -> None:
    (plant.home.folder / "deployments").mkdir()
    (plant.home.folder / "deployments" / "current.json").write_text(content)
    assert line_version(plant.home) is None


def test_damaged_outcomes_are_begun_anew(plant: Plant) -> None:
    plant.publish(1)
    (plant.home.folder / "versions" / "outcomes.json").write_text('{"versions": {"x": 1}}')
    plant.start()
    plant.look()
    assert plant.worker.deployed == [1, 1]


def test_what_became_of_versions_is_kept_of_the_newest_only(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "MOST_OUTCOMES", 3)
    for number in range(1, 7):
        plant.now += 1
        plant.publish(number)
    kept = json.loads((plant.home.folder / "versions" / "outcomes.json").read_text())["versions"]
    assert sorted(each["report"]["number"] for each in kept.values()) == [4, 5, 6]
    assert [number for number, _ in plant.headquarters.told] == [1, 2, 3, 4, 5, 6]


def test_the_line_s_alarm_for_drift_is_reported_once_and_its_end_too(plant: Plant) -> None:
    plant.publish(1)
    plant.look()
    before = len(plant.headquarters.reports)

    def said(state: str, *reasons: str) -> None:
        content = {"state": state, "version": "ab" * 32, "number": 1, "reasons": reasons, "figures": {}}
        path = plant.home.folder / "line" / "drift.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        plant.look(2)

    said("collecting")
    said("as learned")
    assert len(plant.headquarters.reports) == before
    said("drift", "pictures are darker")
    said("drift", "pictures are darker")
    said("as learned")
    told = plant.headquarters.reports[before:]
    assert [each["outcome"] for each in told] == ["drifting", "as-learned"]
    assert told[0]["reasons"] == ["pictures are darker"]
    (plant.home.folder / "line" / "drift.json").write_text('{"state": "drift"}')
    plant.look()
    assert len(plant.headquarters.reports) == before + 2
