"""How the server speaks: its log, the live view, and `fedserver logs`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from headquarters_parts import finished_run, made_workspace, result
from rich.console import Console

import fedspect.files
from fedserver.cli import app
from fedserver.operations.live_view import LiveView
from fedserver.operations.operator_log import OperatorLog
from fedserver.rounds.event_log import EventLog, EventTail
from fedserver.rounds.events import (
    Event,
    PlantLost,
    PlantRefused,
    PlantReplied,
    RoundClosed,
    RoundContext,
    RoundStarted,
    RunFinished,
    Waiting,
    event_from,
)
from fedserver.workspace import Workspace
from fedspect.console import run_app


def happened(tmp_path: Path) -> list[Event]:
    store = finished_run(made_workspace(tmp_path), rounds=1)
    context = RoundContext("run", 1, 3, "ab" * 32, True)
    return [
        RoundStarted(context, ("plant-1", "plant-2")),
        PlantReplied(context, result("plant-1", 0.5)),
        PlantRefused("plant-2", 1, "update", "it is not finite", 1, False),
        PlantLost("plant-2", 1, "it went offline"),
        Waiting(2, 1, 2, "round 2 needs 2 plants and has 1"),
        RoundClosed(store.history()[0], 4.0),
        RunFinished(1, "ab" * 32, False, store.closing(1)),
    ]


def test_an_event_reads_back_from_the_log_as_it_was(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    events = happened(tmp_path)
    for event in events:
        log(event)
    assert [event_from(row) for row in EventTail(log.path, from_start=True).new()] == events


def test_one_round_is_a_round_and_more_are_rounds() -> None:
    assert "finished after 1 round; " in str(RunFinished(1, "ab" * 32, False, None))
    assert "finished after 2 rounds; " in str(RunFinished(2, "ab" * 32, False, None))


@pytest.mark.parametrize("row", [{}, {"event": "Nothing"}, {"event": "PlantLost", "plant": 3}])
def test_a_row_that_is_no_event_is_none(row: dict[str, Any]) -> None:
    assert event_from(row) is None


def test_the_log_has_sentences_and_events_and_a_person_sees_the_same_lines(tmp_path: Path) -> None:
    lines: list[str] = []
    operator_log = OperatorLog(tmp_path / "server.jsonl", lines.append)
    operator_log.say("plants may join")
    for event in happened(tmp_path):
        operator_log.event({**event.as_dict(), "text": str(event)})
    rows = [json.loads(line) for line in (tmp_path / "server.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == lines
    assert [row.get("event") for row in rows][:3] == [None, "RoundStarted", "PlantRefused"]
    assert "PlantReplied" not in [row.get("event") for row in rows]


def test_a_terminal_shows_the_rounds_live_with_sentences_above(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with LiveView(rounds=3, title="steel run-0001", console=console) as view:
        operator_log = OperatorLog(tmp_path / "server.jsonl", lambda text: None, view)
        operator_log.say("plants may join at port 9094")
        for event in happened(tmp_path):
            operator_log.event({**event.as_dict(), "text": str(event)})
        assert view.view.finished and view.view.plants["plant-1"].accuracy == 0.5
    assert "plants may join at port 9094" in screen.getvalue()
    assert "steel run-0001" in screen.getvalue()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return made_workspace(tmp_path)


def test_logs_prints_the_last_lines_as_text_or_as_they_are_stored(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def logs(*words: str) -> list[str]:
        with pytest.raises(SystemExit):
            run_app(app, ["logs", "-w", str(workspace.folder), *words])
        return capsys.readouterr().out.splitlines()

    assert logs() == []
    monkeypatch.setattr(fedspect.files, "LARGEST_LOG", 600)
    operator_log = OperatorLog(workspace.logs / "server.jsonl", lambda text: None)
    for number in range(20):
        operator_log.say(f"sentence {number}")
    assert (workspace.logs / "server.old.jsonl").exists()
    assert [line.split("  ")[1] for line in logs("--lines", "3")] == [f"sentence {n}" for n in (17, 18, 19)]
    assert json.loads(logs("--json")[-1])["text"] == "sentence 19"
    assert logs("--lines", "0") == []


@pytest.mark.slow
def test_logs_follows_until_it_is_interrupted(workspace: Workspace) -> None:
    operator_log = OperatorLog(workspace.logs / "server.jsonl", lambda text: None)
    operator_log.say("before")
    words = [sys.executable, "-m", "fedserver.cli", "logs", "--follow", "-w", str(workspace.folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "before" in process.stdout.readline()
        operator_log.say("after")
        assert "after" in process.stdout.readline()
        process.send_signal(2)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
