"""`fedserver models` and what `fedserver plants` says of versions, as an operator types them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headquarters_parts import begun_run, close_round, edit, finished_run, made_workspace

from fedserver.cli import app
from fedserver.enrolment.tokens import invite
from fedserver.rounds.event_log import EventLog
from fedserver.rounds.events import PlantRefused
from fedserver.storage.run_state import ClientRecord
from fedserver.workspace import Workspace
from fedspect.console import run_app
from fedspect.model.base import load_base
from fedspect.model.levels import head_state
from fedspect.protocol.versions import DeploymentReport


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return made_workspace(tmp_path)


@pytest.fixture
def run(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Any:
    def fedserver(*words: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as ended:
            run_app(app, [*words, "-w", str(workspace.folder)])
        captured = capsys.readouterr()
        assert int(ended.value.code or 0) == code, captured.err
        return json.loads(captured.out) if "--json" in words else captured.out + captured.err

    return fedserver


def test_publish_takes_the_last_round_with_what_the_plants_measured_of_it(
    workspace: Workspace, run: Any
) -> None:
    store = finished_run(workspace)
    made = run("models", "publish", "--json")
    assert (made["version"], made["round"], made["run"], made["new"]) == (1, 2, "run-0001", True)
    assert made["accuracy"] == pytest.approx(0.75) and made["before"] == pytest.approx(0.55)
    shown = run("models", "show", "1", "--json")
    assert shown["content_hash"] == store.latest().served.version
    assert shown["state"] == "published" and shown["freeze_levels"] == 0
    assert [(row["plant"], row["accuracy"], row["before"]) for row in shown["plants"]] == [
        ("plant-1", pytest.approx(0.7), 0.5),
        ("plant-2", pytest.approx(0.8), 0.6),
    ]
    assert "nothing changed" in run("models", "publish")
    assert run("status", "--json")["published"]["number"] == 1


def test_the_list_says_what_was_gained_and_stays_a_table_on_a_narrow_terminal(
    run: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    finished_run(workspace)
    run("models", "publish")
    head, row = (line for line in run("models", "list").splitlines() if re.search("[┃│]", line))
    assert re.findall(r"\w+", head) == (
        ["version", "state", "run", "round", "accuracy", "before", "lines", "published"]
    )
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells[:-1] == ["1", "published", "1", "2", "75.0 %", "55.0 %", "0"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", cells[-1])
    assert "fact" in run("models", "show", "1")


def test_a_round_can_be_chosen_by_number_or_as_the_best(workspace: Workspace, run: Any) -> None:
    store = begun_run(workspace)
    for accuracy in (0.5, 0.6, 0.9, 0.7):
        close_round(store, accuracy, accuracy)
    assert run("models", "publish", "--round", "3", "--json")["round"] == 3
    best = run("models", "publish", "--round", "best", "--json")
    assert (best["round"], best["version"], best["accuracy"]) == (2, 2, pytest.approx(0.9))
    assert "accepted" in run("models", "publish", "--round", "17", code=61)
    assert "newer version 2" in run("models", "publish", "--round", "3")


def test_a_retired_version_is_not_published_again_by_accident(workspace: Workspace, run: Any) -> None:
    finished_run(workspace)
    run("models", "publish")
    assert "no version is published" in run("models", "retire", "1", "--reason", "too many escapes")
    said = run("models", "publish", code=61)
    assert "too many escapes" in said and "--undo" in said
    assert run("models", "list", "--json")[0]["state"] == "retired"
    run("models", "retire", "1", "--undo")
    assert run("models", "list", "--json")[0]["state"] == "published"


def test_an_exported_version_is_a_base_model_with_the_runs_head(
    workspace: Workspace, run: Any, tmp_path: Path
) -> None:
    store = finished_run(workspace)
    run("models", "publish")
    exported = run("models", "export", "1", str(tmp_path / "out"), "--json")
    base = load_base(tmp_path / "out")
    assert base.content_hash == exported["base_hash"] != workspace.base().content_hash
    assert base.card.classes == ["pit", "scratch"]
    state = head_state(base.network(["pit", "scratch"], seed=0), 0)
    for name, values in store.head(2).items():
        assert np.array_equal(state[name].numpy(), values)
    assert "not empty" in run("models", "export", "1", str(tmp_path / "out"), code=61)


def test_a_version_is_exported_though_the_federation_has_another_base_by_now(
    workspace: Workspace, run: Any, tmp_path: Path
) -> None:
    finished_run(workspace)
    run("models", "publish")
    (tmp_path / "base").rename(workspace.folder / "bases-elsewhere")
    edit(workspace, base="default")
    assert "put its folder back" in run("models", "export", "1", str(tmp_path / "out"), code=32)
    workspace.bases.mkdir(exist_ok=True)
    (workspace.folder / "bases-elsewhere").rename(workspace.bases / "old")
    run("models", "export", "1", str(tmp_path / "out"))


def test_plants_says_which_version_each_line_runs(workspace: Workspace, run: Any) -> None:
    finished_run(workspace)
    version = run("models", "publish", "--json")
    invited(workspace, "plant-1", "plant-2", "plant-3")

    def report(plant: str, outcome: str, number: int = 1) -> None:
        told = DeploymentReport.model_validate(
            {
                "version": version["content_hash"],
                "number": number,
                "outcome": outcome,
                "reasons": ["2 of 20 golden pictures differ"] if outcome == "refused" else [],
            }
        )
        workspace.deployments.add(plant, told, at=time.time())

    report("plant-1", "activated")
    report("plant-2", "activated")
    report("plant-2", "refused", 2)
    rows = {row["plant"]: row for row in run("plants", "--json")}
    on_the_line = {plant: row["version on the line"] for plant, row in rows.items()}
    assert on_the_line == {"plant-1": "1", "plant-2": "1 (2 refused)", "plant-3": None}
    assert rows["plant-2"]["deployments"][-1]["report"]["reasons"] == ["2 of 20 golden pictures differ"]
    assert "refused" in run("plants", "show", "plant-2")
    assert run("models", "list", "--json")[0]["on the line"] == 2
    assert run("plants", "show", "plant-1", "--json")["version on the line"] == "1"
    run("plants", "show", "nobody", code=64)


def test_without_versions_or_runs_each_command_says_what_to_do(run: Any) -> None:
    assert "fedserver models publish" in run("models", "list")
    assert "publish one" in run("models", "show", code=61)
    assert "fedserver start" in run("models", "publish", code=61)
    run("models", "retire", "nothing", code=61)


def invited(workspace: Workspace, *plants: str) -> None:
    for plant in plants:
        invite(
            workspace.registry,
            plant,
            lifetime=60,
            addresses=[("localhost", 1)],
            fingerprint=workspace.authority.fingerprint(),
        )


def test_a_plant_that_was_quarantined_is_let_in_again(workspace: Workspace, run: Any) -> None:
    store = begun_run(workspace)
    quarantined = ClientRecord(refusals=3, quarantined=True, last_refusal="it is not finite")
    close_round(store, 0.5, client_records={"plant-1": quarantined})
    invited(workspace, "plant-1")
    assert "from the next round on" in run("plants", "release", "plant-1")
    assert store.quarantine_releases.take() == ["plant-1"]


def test_a_plant_that_was_quarantined_in_the_open_round_is_let_in_again(
    workspace: Workspace, run: Any
) -> None:
    store = begun_run(workspace)
    close_round(store, 0.5, client_records={"plant-1": ClientRecord(refusals=2)})
    invited(workspace, "plant-1")
    EventLog(store.folder / "events.jsonl")(PlantRefused("plant-1", 2, "update", "it is not finite", 3, True))
    run("plants", "release", "plant-1")
    assert store.quarantine_releases.take() == ["plant-1"]


def test_a_plant_that_was_not_quarantined_or_has_left_is_not_let_in(workspace: Workspace, run: Any) -> None:
    store = begun_run(workspace)
    close_round(store, 0.5, client_records={"plant-1": ClientRecord(refusals=2)})
    invited(workspace, "plant-1", "plant-2", "plant-3")
    log = EventLog(store.folder / "events.jsonl")
    log(PlantRefused("plant-1", 1, "update", "it is not finite", 3, True))  # before it was let in in round 1
    log(PlantRefused("plant-1", 2, "update", "it is not finite", 1, False))
    assert "was not quarantined" in run("plants", "release", "plant-1", code=60)
    with workspace.registry.change() as roll:
        roll.plants["plant-2"].state = "left"
    run("plants", "revoke", "plant-3")
    left = run("plants", "release", "plant-2", code=64)
    assert "has left" in left and "fedserver invite plant-2" in left
    assert "was revoked" in run("plants", "release", "plant-3", code=64)
    assert store.quarantine_releases.take() == []
