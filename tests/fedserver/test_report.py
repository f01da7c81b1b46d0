"""The report of a run: what joining gained, what went wrong, where versions run; one page, JSON, TensorBoard."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from headquarters_parts import begun_run, close_round, finished_run, made_workspace, result

from fedserver.cli import app
from fedserver.enrolment.tokens import invite
from fedserver.report.facts import gather
from fedserver.report.page import render, sentences
from fedserver.report.records import FederationReport, PlantRow
from fedserver.rounds.history import Refusal
from fedserver.workspace import Workspace
from fedspect.console import run_app
from fedspect.protocol.versions import DeploymentReport


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return made_workspace(tmp_path)


def named(report: FederationReport, plant: str) -> PlantRow:
    return next(row for row in report.plants if row.plant == plant)


def register(workspace: Workspace, plant: str) -> None:
    fingerprint = workspace.authority.fingerprint()
    invite(workspace.registry, plant, lifetime=60, addresses=[("localhost", 1)], fingerprint=fingerprint)


def test_a_plants_gain_is_the_last_model_against_the_first_on_its_own_pictures(workspace: Workspace) -> None:
    store = finished_run(workspace, rounds=3)
    report = gather(workspace, store.folder)
    row = named(report, "plant-2")
    assert (row.before, row.before_round) == (0.6, 0)
    assert (row.after, row.after_round) == (pytest.approx(0.9), 3)
    assert row.gain == pytest.approx(0.3)
    assert [point.round for point in row.course] == [0, 1, 2, 3]
    assert (row.updates, row.bytes_up, row.seconds) == (3, 15_000, 2.0)
    assert report.state == "finished" and report.before == pytest.approx(0.55)
    assert [each.accuracy for each in report.rounds] == [pytest.approx(x) for x in (0.65, 0.75, 0.85)]


def test_a_plant_that_came_later_is_measured_from_the_model_that_it_was_given_first(
    workspace: Workspace,
) -> None:
    store = begun_run(workspace, rounds=5)
    close_round(store, 0.5)
    close_round(store, 0.6, 0.7)
    close_round(store, 0.7, 0.9)
    row = named(gather(workspace, store.folder), "plant-2")
    assert (row.before, row.before_round, row.after_round) == (0.7, 1, 2)
    assert row.gain == pytest.approx(0.2)


def test_a_late_answer_speaks_of_the_model_that_the_plant_was_given(workspace: Workspace) -> None:
    store = begun_run(workspace, rounds=5)
    close_round(store, 0.5)
    close_round(store, plants=[result("plant-1", 0.4, late_by=1)])
    report = gather(workspace, store.folder)
    assert [(point.round, point.accuracy) for point in named(report, "plant-1").course] == [(0, 0.4)]
    assert [(each.kind, each.round) for each in report.troubles] == [("late", 2)]


def test_refusals_and_lost_plants_are_listed_with_their_reasons(workspace: Workspace) -> None:
    store = begun_run(workspace, rounds=5)
    refused = [Refusal(plant="plant-2", kind="update", reason="a value is not finite")]
    close_round(store, 0.5, 0.6, refused=refused, lost={"plant-9": "it went offline"})
    report = gather(workspace, store.folder)
    assert [(each.plant, each.kind, each.reason) for each in report.troubles] == [
        ("plant-2", "refused", "a value is not finite"),
        ("plant-9", "lost", "it went offline"),
    ]
    assert named(report, "plant-9").lost == 1 and named(report, "plant-9").gain is None


class Loads(HTMLParser):
    """Everything that a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "object"):
            self.found.append(tag)
        for name, value in attrs:
            if name in ("src", "href") and value and not value.startswith(("#", "data:")):
                self.found.append(value)


def test_the_page_is_one_file_that_loads_nothing_and_escapes_what_others_say(workspace: Workspace) -> None:
    store = begun_run(workspace, rounds=2)
    close_round(store, 0.5, 0.6, lost={"plant-9": "<script>alert(1)</script>"})
    close_round(store, 0.7, 0.6, notes=["<b>bold</b>"])
    page = render(gather(workspace, store.folder))
    loads = Loads()
    loads.feed(page)
    assert loads.found == []
    assert "<script" not in page and "<b>bold" not in page
    assert "&lt;script&gt;" in page and "plant-9" in page and "<svg" in page


def test_a_run_without_a_round_has_a_page_too(workspace: Workspace) -> None:
    store = begun_run(workspace)
    report = gather(workspace, store.folder)
    assert sentences(report) == ["No round is closed yet, of 20 that are planned."]
    assert "–" in render(report)


def test_report_writes_page_json_and_events_and_says_where_versions_run(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(workspace)
    register(workspace, "plant-1")

    def fedserver(*words: str) -> Any:
        with pytest.raises(SystemExit) as ended:
            run_app(app, [*words, "-w", str(workspace.folder), "--json"])
        captured = capsys.readouterr()
        assert not ended.value.code, captured.out
        return json.loads(captured.out)

    version = fedserver("models", "publish")
    told = {"version": version["content_hash"], "number": 1, "outcome": "activated"}
    workspace.deployments.add("plant-1", DeploymentReport.model_validate(told), at=1.0)
    for _ in range(2):
        made = fedserver("report", "--open-nothing")
    facts = FederationReport.model_validate_json(Path(made["facts"]).read_text())
    assert facts.versions[0].lines == ["plant-1"] and named(facts, "plant-1").line == 1
    assert re.search(r"on the line of plant-1", Path(made["page"]).read_text())
    assert len(list(Path(made["events"]).iterdir())) == 1


def test_a_report_takes_no_folder_that_holds_something_else(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(workspace)

    def report(place: Path) -> tuple[int, str]:
        words = ["report", "--open-nothing", "--output", str(place), "-w", str(workspace.folder)]
        with pytest.raises(SystemExit) as ended:
            run_app(app, words)
        return int(ended.value.code or 0), capsys.readouterr().err

    foreign = tmp_path / "experiments"
    (foreign / "tensorboard").mkdir(parents=True)
    code, said = report(foreign)
    assert code == 61 and "experiments: tensorboard" in said
    assert [each.name for each in foreign.iterdir()] == ["tensorboard"]
    (tmp_path / "new").mkdir()
    assert report(tmp_path / "new")[0] == 0
    (tmp_path / "new" / "remarks.txt").write_text("for the meeting")
    assert report(tmp_path / "new")[0] == 0


def test_tensorboard_reads_the_curves(workspace: Workspace, tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from fedserver.report.events import write_events

    report = gather(workspace, finished_run(workspace, rounds=2).folder)
    assert write_events(report, tmp_path / "tensorboard")
    read = loader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    curve = [(each.step, round(each.value, 3)) for each in read.Scalars("accuracy/plant-1")]
    assert curve == [(0, 0.5), (1, 0.6), (2, 0.7)]
    assert {"accuracy/all", "loss/plant-2", "round/seconds", "round/bytes up"} <= set(read.Tags()["scalars"])
