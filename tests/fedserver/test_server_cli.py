"""The commands of headquarters that need no running server, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from headquarters_parts import begun_run, made_workspace

from fedserver.cli import app
from fedserver.enrolment.plant_registry import PlantRegistry, RegisteredPlant
from fedspect.console import run_app
from fedspect.files import write_json
from fedspect.protocol.join_token import decode


def fedserver(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_app(app, list(words))
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.fixture
def hq(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    folder = str(tmp_path / "hq")
    code, _, said = fedserver(
        capsys, "init", folder, "--host", "hq.example.org", "--host", "192.0.2.7", "--classes", "pit,scratch"
    )
    assert code == 0 and "fedserver invite" in said
    return folder


def test_the_commands_are_these() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert names >= {"init", "invite", "start", "status", "stop"}
    assert [group.name for group in app.registered_groups] == ["plants", "models"]


def test_init_twice_says_that_nothing_changed(hq: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = fedserver(capsys, "init", hq, "--host", "hq.example.org")
    assert code == 0
    assert "nothing changed" in said and "made" not in said and "stays" not in said


def test_init_on_a_workspace_says_which_options_it_does_not_take(
    hq: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("init", hq, "--host", "hq.example.org", "--name")
    code, _, said = fedserver(capsys, *words, "steel", "--classes", "pit, good")
    assert code == 0
    assert "classes stays pit, scratch, not pit, good" in said and "name stays hq, not steel" in said
    assert "stays" not in fedserver(capsys, *words, "hq", "--classes", "pit, scratch")[2]


def test_init_takes_no_classes_that_plants_would_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("init", str(tmp_path / "hq"), "--host", "hq.example.org", "--classes")
    code, _, said = fedserver(capsys, *words, "roll-mark, roll_mark")
    assert code == 10 and "keep one of them" in said
    code, _, said = fedserver(capsys, *words, "pit")
    assert code == 10 and "fewer than two" in said
    assert fedserver(capsys, *words, "roll-mark, pit")[0] == 0


def test_invite_prints_one_line_that_a_plant_can_read(hq: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, said = fedserver(capsys, "invite", "plant-a", "--expires", "30m", "-w", hq)
    assert code == 0
    assert out.count("\n") == 1
    token = decode(out)
    assert token.plant == "plant-a"
    assert token.addresses == (("hq.example.org", 9094), ("192.0.2.7", 9094))
    assert "fedclient join" in said


def test_plants_lists_who_was_invited_and_revoke_shuts_one_out(
    hq: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fedserver(capsys, "invite", "plant-a", "-w", hq)
    rows: list[dict[str, Any]] = json.loads(fedserver(capsys, "plants", "-w", hq, "--json")[1])
    assert [(row["plant"], row["state"], row["online"]) for row in rows] == [("plant-a", "invited", "no")]
    assert fedserver(capsys, "plants", "revoke", "plant-a", "-w", hq)[0] == 0
    rows = json.loads(fedserver(capsys, "plants", "-w", hq, "--json")[1])
    assert rows[0]["state"] == "revoked"


def test_plants_tells_what_each_has_and_lets_no_report_of_an_earlier_server_stop_it(
    hq: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paused = {"kind": "paused", "reason": "paused by the engineer", "until": None}
    with PlantRegistry(Path(hq) / "registry").change() as roll:
        for name, report in {
            "plant-a": {"counts": {"pit": 3, "scratch": 4}, "training": None, "problems": {}},
            "plant-b": {"counts": {"pit": "x"}},
            "plant-c": {"training": paused},
        }.items():
            roll.plants[name] = RegisteredPlant(name=name, state="joined", report=report)
    rows: list[dict[str, Any]] = json.loads(fedserver(capsys, "plants", "-w", hq, "--json")[1])
    assert [(row["pictures"], row["counts"], row["state"]) for row in rows] == [
        (7, {"pit": 3, "scratch": 4}, "joined"),
        (None, {}, "joined"),
        (None, {}, "paused"),
    ]
    assert rows[2]["training waits"] == "paused by the engineer"
    assert rows[0]["training waits"] is None
    assert fedserver(capsys, "plants", "show", "plant-b", "-w", hq)[0] == 0


@pytest.mark.parametrize(
    ("group", "words"),
    [("plants", ("show", "plant-a")), ("plants", ("revoke", "plant-a")), ("models", ("list",))],
)
def test_a_groups_workspace_is_that_of_its_commands(
    hq: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    group: str,
    words: tuple[str, ...],
) -> None:
    other = str(tmp_path / "other")
    fedserver(capsys, "init", other, "--host", "other.example.org", "--classes", "pit,scratch")
    fedserver(capsys, "invite", "plant-a", "-w", other)
    fedserver(capsys, "invite", "plant-a", "-w", hq)
    monkeypatch.chdir(hq)
    monkeypatch.setenv("FEDSERVER_WORKSPACE", hq)
    code = fedserver(capsys, group, "-w", other, *words, "--json")[0]
    assert code == 0
    states = [
        json.loads(fedserver(capsys, "plants", "-w", each, "--json")[1])[0]["state"] for each in (hq, other)
    ]
    assert states == ["invited", "revoked" if "revoke" in words else "invited"]
    fedserver(capsys, group, "-w", other, *words, "-w", hq)
    row = json.loads(fedserver(capsys, "plants", "-w", hq, "--json")[1])[0]
    assert row["state"] == ("revoked" if "revoke" in words else "invited")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("invite", "Plant A"), 10),
        (("invite", "plant-a", "--expires", "soon"), 10),
        (("plants", "revoke", "nobody"), 64),
        (("start",), 32),
        (("start", "--rounds", "-1"), 2),
    ],
)
def test_a_users_slip_ends_in_its_exit_code_and_a_remedy(
    hq: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    path = Path(hq) / "fedserver.toml"
    path.write_text(path.read_text().replace('base = "default"', 'base = "nowhere"'))
    ended, _, said = fedserver(capsys, *words, "-w", hq)
    assert ended == code, said
    assert "Traceback" not in said


def test_without_a_workspace_every_command_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("invite", "a"), ("plants",), ("start",), ("status",), ("stop",)):
        code, _, said = fedserver(capsys, *words, "-w", str(tmp_path))
        assert code == 61
        assert "fedserver init" in said


def test_status_and_stop_without_a_server_say_so(hq: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(fedserver(capsys, "status", "-w", hq, "--json")[1])["running"] is None
    code, _, said = fedserver(capsys, "stop", "-w", hq)
    assert code == 0 and "no server is running" in said


def test_what_a_run_said_before_its_server_was_killed_is_told_as_past(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = made_workspace(tmp_path)
    store = begun_run(workspace)
    store.say("running", "round 1 of 4 begins with plant-a")
    out = fedserver(capsys, "status", "-w", str(workspace.folder))[1]
    assert "run-0001: cut; the last that was heard, at 2" in out
    assert "running: round 1 of 4 begins" in " ".join(out.split())
    with workspace.taken():
        write_json(workspace.running_path, {"pid": 7, "online": [], "run": "run-0001"})
        out = fedserver(capsys, "status", "-w", str(workspace.folder))[1]
    assert "run-0001: running: round 1 of 4 begins with plant-a" in out
    store.say("stopped", "too few plants")
    assert "run-0001: stopped: too few" in fedserver(capsys, "status", "-w", str(workspace.folder))[1]
