"""The node's own parts: its status, the policy watcher, headquarters sync."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from fedclient.node.enrolment.session import Session
from fedclient.node.headquarters_sync import HeadquartersSync, site_report
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedclient.node.node_status import WRITE_EVERY, NodeStatus
from fedclient.node.policy_watcher import PolicyWatcher
from fedclient.node.worker_supervisor import WorkerSupervisor, worker_settings
from fedclient.plant_settings import PlantSettings
from fedclient.yield_policy import YieldPolicy
from fedspect.errors import ConnectionLostError, EnrolmentError, WorkerError, YieldedError
from fedspect.files import write_json
from fedspect.protocol.enrolment_pb2 import Admission
from fedspect.protocol.limits import LARGEST_REPORT
from fedspect.update.round_messages import RoundTask


@pytest.fixture
def home(tmp_path: Path) -> PlantHome:
    made = PlantHome(tmp_path / "home")
    made.prepare()
    made.remember(membership(), b"")
    write_json(made.report_path, {"counts": {"pit": 7}, "examples": [{"name": "secret/1.png"}]})
    return made


def membership(**more: Any) -> Membership:
    given = {
        "plant": "plant-a",
        "federation": "steel",
        "fingerprint": "00" * 32,
        "enrolment_addresses": [],
        "fleet_addresses": [],
        "classes": ["pit", "plain"],
        "base_hash": "ab" * 32,
        "data": "/pictures",
    }
    return Membership.model_validate({**given, **more})


# -- the status --------------------------------------------------------------------------------------------


def test_the_status_is_in_the_file_but_progress_not_with_every_batch(home: PlantHome) -> None:
    now = [1000.0]
    changes: List[int] = []
    status = NodeStatus(home, on_change=lambda: changes.append(1), clock=lambda: now[0])
    status.set_state("working", "on a message")
    for done in range(1, 50):
        status.progress("training", done, 100)
    written = home.status()
    assert written is not None and written["state"] == "working" and "work" not in written
    assert status.facts["work"]["done"] == 49 and len(changes) == 50
    now[0] += WRITE_EVERY
    status.progress("training", 50, 100)
    written = home.status()
    assert written is not None and written["work"]["done"] == 50


def test_a_problem_is_news_once_and_when_it_is_gone(home: PlantHome) -> None:
    status = NodeStatus(home)
    assert status.problem("settings", "unknown key") is True
    assert status.problem("settings", "unknown key") is False
    assert status.problem("settings", None) is True
    assert status.facts["problems"] == {}


def test_a_full_disk_does_not_end_the_node(home: PlantHome) -> None:
    status = NodeStatus(home)
    home.status_path.mkdir()
    (home.status_path / "in the way").write_text("")
    status.set_state("working")
    assert status.facts["state"] == "working"


# -- the worker --------------------------------------------------------------------------------------------


def test_the_worker_gets_what_headquarters_prescribes_and_what_the_plant_allows(home: PlantHome) -> None:
    prescribed = membership(settings={"training": {"batch_size": 8, "device": "cuda"}, "freeze_levels": 8})
    allowed = PlantSettings.model_validate(
        {"device": {"device": "cpu", "threads": 2, "cache": 100}, "training": {"memory_limit": 400}}
    )
    content = worker_settings(home, prescribed, allowed)
    assert content["training"] == {
        "batch_size": 8,
        "device": "cpu",
        "threads": 2,
        "cache_limit": 100 << 20,
        "memory_limit": 100 << 20,
    }
    assert content["freeze_levels"] == 8 and content["base"].endswith("ab" * 32)


def test_a_paused_plant_gives_a_round_back_without_starting_its_worker(home: PlantHome) -> None:
    yield_policy = YieldPolicy(home.folder)
    worker = WorkerSupervisor(home, yield_policy, NodeStatus(home))
    worker.ensure_running(membership(worker_python="/no/such/python"))
    yield_policy.mark.put(since=0.0)
    with pytest.raises(YieldedError, match="paused by the plant's engineer"):
        worker.work(b"a task")


@pytest.mark.parametrize(
    ("number", "trains", "words"), [(1, True, "on round 1 of 2"), (3, False, "on the closing evaluation")]
)
def test_the_status_says_which_round_is_worked_on(
    home: PlantHome, number: int, trains: bool, words: str
) -> None:
    status = NodeStatus(home)
    worker = WorkerSupervisor(home, YieldPolicy(home.folder), status)
    worker.ensure_running(membership(worker_python="/no/such/python"))
    status.set_state("working", "on what headquarters asks")
    task = RoundTask(
        run_id="run-1",
        round=number,
        total_rounds=2,
        base_hash="a" * 64,
        version="b" * 64,
        payload_kind="none",
        train=trains,
    )
    with pytest.raises(WorkerError):
        worker.work(task.to_bytes())
    assert (status.facts["state"], status.facts["detail"]) == ("working", words)


# -- looking to the engineer -------------------------------------------------------------------------------


def test_a_pause_and_its_end_are_said_once_and_put_on_the_board(home: PlantHome) -> None:
    said: List[str] = []
    news: List[int] = []
    yield_policy, status = YieldPolicy(home.folder), NodeStatus(home)
    watcher = PolicyWatcher(
        WorkerSupervisor(home, yield_policy, status), said.append, on_news=lambda: news.append(1)
    )
    watcher.look()
    assert said == [] and news == []
    yield_policy.mark.put(since=0.0)
    for _ in range(3):
        watcher.look()
    assert len(said) == 1 and said[0].startswith("training waits: paused")
    assert status.facts["training"]["kind"] == "paused"
    yield_policy.mark.remove()
    watcher.look()
    assert said[1] == "training may run" and status.facts["training"] is None and len(news) == 2


def test_a_broken_settings_file_is_named_once(home: PlantHome) -> None:
    said: List[str] = []
    yield_policy, status = YieldPolicy(home.folder), NodeStatus(home)
    watcher = PolicyWatcher(WorkerSupervisor(home, yield_policy, status), said.append)
    yield_policy.file.path.write_text("[training]\nhour = []\n")
    watcher.look()
    watcher.look()
    assert len(said) == 1 and "training.hours" in said[0]
    yield_policy.file.path.write_text("")
    watcher.look()
    assert status.facts["problems"] == {}


# -- visits to headquarters --------------------------------------------------------------------------------


class Headquarters:
    """Sessions that end after some calls, and what was told in them."""

    def __init__(self) -> None:
        self.opened = self.closed = 0
        self.lives = 1000
        self.reports: List[Dict[str, Any]] = []
        self.error: BaseException = EnrolmentError("this session is over")

    @contextmanager
    def visit(self, home: PlantHome, membership: Membership) -> Iterator[Any]:
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1

    def report(self, report: Dict[str, Any]) -> None:
        self.reports.append(report)

    def look(self, session: Any, base_hash: str) -> None:
        self.lives -= 1
        if self.lives < 0:
            self.lives = 1000
            raise self.error


def sync(home: PlantHome, headquarters: Headquarters) -> HeadquartersSync:
    updater: Any = headquarters
    return HeadquartersSync(
        home, YieldPolicy(home.folder), NodeStatus(home), updater, visit=headquarters.visit
    )


def test_one_session_serves_many_visits_and_one_that_is_over_is_opened_again(home: PlantHome) -> None:
    headquarters = Headquarters()
    made = sync(home, headquarters)
    for _ in range(5):
        made.visit()
    assert headquarters.opened == 1
    headquarters.lives = 0
    made.visit()
    assert (headquarters.opened, headquarters.closed) == (2, 1)


def test_a_headquarters_that_shuts_the_plant_out_is_not_asked_twice_in_a_visit(home: PlantHome) -> None:
    headquarters = Headquarters()
    headquarters.lives = 0
    with pytest.raises(EnrolmentError):
        sync(home, headquarters).visit()
    assert (headquarters.opened, headquarters.closed) == (1, 1)


def test_the_report_is_handed_in_when_it_is_news_and_names_no_picture(home: PlantHome) -> None:
    headquarters = Headquarters()
    made = sync(home, headquarters)
    made.report()
    made.visit()
    assert len(headquarters.reports) == 1
    YieldPolicy(home.folder).mark.put(since=0.0)
    made.visit()
    made.visit()
    assert [report["training"] and report["training"]["kind"] for report in headquarters.reports] == [
        None,
        "paused",
    ]
    assert "secret" not in json.dumps(headquarters.reports)
    assert headquarters.reports[0]["counts"] == {"pit": 7}


def test_a_report_that_is_too_long_is_named_once_and_versions_are_looked_at(
    home: PlantHome, caplog: pytest.LogCaptureFixture
) -> None:
    headquarters = Headquarters()
    write_json(home.report_path, {"counts": {"pit": 7}, "remarks": ["x" * LARGEST_REPORT]})
    stub: Any = None
    made = sync(home, headquarters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headquarters, "report", Session(stub, Admission(), 0.0).report)
        for _ in range(3):
            made.visit()
    assert headquarters.lives == 997 and headquarters.opened == 1
    (record,) = caplog.records
    assert "too long" in record.getMessage()


def test_a_plant_without_a_report_has_nothing_to_hand_in(home: PlantHome) -> None:
    home.report_path.unlink()
    assert site_report(home, YieldPolicy(home.folder)) is None


def test_visits_go_on_after_whatever_went_wrong_and_end_when_told(home: PlantHome) -> None:
    headquarters = Headquarters()
    (home.folder / "plant.toml").write_text("[versions]\nlook_every = 1\n")
    made = sync(home, headquarters)
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        for error in (ConnectionLostError("gone"), RuntimeError("a defect"), EnrolmentError("no")):
            headquarters.error, headquarters.lives = error, 0
            visits = headquarters.closed
            made.soon()
            for _ in range(400):
                if headquarters.closed > visits:
                    break
                threading.Event().wait(0.05)
            assert headquarters.closed > visits
    finally:
        stop.set()
        made.soon()
        thread.join(20)
    assert not thread.is_alive()
