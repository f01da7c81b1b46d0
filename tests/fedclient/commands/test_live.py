"""The live view of `fedclient join`."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from rich.console import Console

import fedspect.files
from fedclient.commands.live import JoinView
from fedclient.commands.wording import plain, round_text

FACTS = {
    "state": "working",
    "detail": "on a message",
    "round": {"round": 3, "of": 20, "accuracy": 0.931, "loss": 0.25},
    "work": {"stage": "training", "done": 30, "total": 120},
    "training": {"kind": "load", "reason": "others use 90 % of the processors"},
    "version": {"number": 5, "version": "05" * 32, "outcome": "refused", "why": "two\nescapes more"},
    "problems": {"settings": "unknown key \x1b[31m"},
}
LINE = {"number": 4, "version": "04" * 32, "at": 0.0}


def view(tmp_path: Path, *, terminal: bool) -> tuple[JoinView, io.StringIO]:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=110, color_system=None)
    made = JoinView("plant-a of steel", tmp_path / "log.jsonl", console=console)
    made.facts, made.line = lambda: FACTS, lambda: LINE
    return made, written


def test_the_view_shows_state_round_progress_accuracy_and_the_lines_version(tmp_path: Path) -> None:
    made, written = view(tmp_path, terminal=True)
    made._console.print(made.render())
    text = written.getvalue()
    for words in (
        "plant-a of steel   working on a message",
        "training waits: others use 90 %",
        "round 3 of 20, accuracy of what was received 93.1 %, training loss 0.250",
        "training",
        "30 of 120",
        "on the line: version 4 (040404040404)",
        "published: version 5 (050505050505), refused: two escapes more",
        "settings: unknown key  [31m",
    ):
        assert words in text, words


def test_an_empty_board_can_be_shown(tmp_path: Path) -> None:
    made, written = view(tmp_path, terminal=True)
    made.facts, made.line = dict, lambda: None
    made._console.print(made.render())
    assert "starting" in written.getvalue()


def test_sentences_stand_above_the_view_and_in_the_log(tmp_path: Path) -> None:
    made, written = view(tmp_path, terminal=True)
    with made:
        made.say("joined: at hq:9092")
        logging.getLogger("fedclient.node").warning("a warning")
    assert "joined: at hq:9092" in written.getvalue() and "a warning" in written.getvalue()
    assert json.loads((tmp_path / "log.jsonl").read_text())["text"] == "joined: at hq:9092"


def test_without_a_terminal_there_are_lines_only(tmp_path: Path) -> None:
    made, written = view(tmp_path, terminal=False)
    with made:
        made.say("[bold]joined[/]: at hq:9092")
    assert written.getvalue() == "[bold]joined[/]: at hq:9092\n"


def test_the_closing_evaluation_is_no_round_beyond_the_last() -> None:
    text = round_text({"round": 21, "of": 20, "trains": False, "accuracy": 1.0})
    assert text == "the closing evaluation after 20 rounds, accuracy of what was received 100.0 %"


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert plain("a\x1b[2Jb\nc") == "a [2Jb c"


def test_the_log_turns_over_when_it_has_grown_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedspect.files, "LARGEST_LOG", 300)
    made, _ = view(tmp_path, terminal=False)
    for number in range(40):
        made.say(f"sentence {number}")
    assert (tmp_path / "log.jsonl").stat().st_size < 400
    assert (tmp_path / "log.old.jsonl").stat().st_size < 400
    assert "sentence 39" in (tmp_path / "log.jsonl").read_text()
