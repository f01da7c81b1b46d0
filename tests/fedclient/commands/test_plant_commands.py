"""What a plant's engineer types: the commands' options, their pages, and what they say."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from PIL import Image

from fedclient.cli import app
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedclient.node.node_status import NodeStatus
from fedclient.plant_settings import SettingsFile
from fedclient.yield_policy import PauseFile
from fedspect.console import run_app
from fedspect.files import write_json
from fedspect.locking import Occupied

PAGES = Path(__file__).parents[3] / "docs" / "commands"
OURS = ("join", "status", "doctor", "data", "pause", "resume", "stop", "leave")


class Ended:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def fedclient(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("FEDSPECT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_app(app, [str(word) for word in words])
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return run


Command = Callable[..., Ended]


@pytest.fixture
def home(tmp_path: Path) -> PlantHome:
    """A plant that has joined."""
    made = PlantHome(tmp_path / "home")
    made.prepare()
    for name in ("pit", "plain"):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        Image.effect_noise((40, 40), 60).convert("L").save(folder / "1.png")
    (tmp_path / "pictures" / "plain" / "torn.png").write_bytes(b"not a picture")
    made.remember(
        Membership(
            plant="plant-a",
            federation="steel",
            fingerprint="00" * 32,
            enrolment_addresses=[],
            fleet_addresses=[],
            classes=["pit", "plain", "scratch"],
            base_hash="ab" * 32,
            data=str(tmp_path / "pictures"),
        ),
        b"",
    )
    return made


def test_the_commands_and_their_options_are_those_that_people_know(fedclient: Command) -> None:
    text = fedclient("--help").out
    for command in OURS:
        assert f" {command} " in text
    text = fedclient("join", "--help").out
    for option in ("--data", "--home", "--worker-python", "--wait", "--detach", "--hours", "--load-limit"):
        assert option in text


@pytest.mark.parametrize("command", OURS)
def test_every_command_has_its_page(command: str) -> None:
    page = (PAGES / f"fedclient-{command}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# fedclient {command}\n")


def test_help_waits_for_neither_torch_nor_flower() -> None:
    program = (
        "import sys, fedclient.cli; print([n for n in ('torch', 'flwr', 'onnxruntime') if n in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert ended.stdout.strip() == "[]"


def test_the_report_knows_the_plants_pictures_and_the_federations_classes(
    fedclient: Command, home: PlantHome, tmp_path: Path
) -> None:
    ended = fedclient("data", "--json")
    assert ended.code == 0
    assert ended.json["usable"] == 2 and ended.json["missing_classes"] == ["scratch"]
    assert ended.json["problems"][0]["name"] == "plain/torn.png"
    page = tmp_path / "page.html"
    assert fedclient("data", "--html", page).code == 0
    text = page.read_text()
    assert "data:image/jpeg;base64," in text and "torn.png" in text


def test_pictures_may_be_looked_at_before_joining(fedclient: Command, tmp_path: Path) -> None:
    assert fedclient("data").code == 10
    (tmp_path / "some" / "pit").mkdir(parents=True)
    Image.new("L", (40, 40)).save(tmp_path / "some" / "pit" / "1.png")
    assert fedclient("data", tmp_path / "some", "--json").json["missing_classes"] == []


@pytest.mark.parametrize("command", ["status", "pause", "resume"])
def test_a_plant_that_never_joined_is_told_how(fedclient: Command, command: str) -> None:
    ended = fedclient(command)
    assert ended.code == 61 and "fedclient join TOKEN" in ended.err


def test_a_pause_is_seen_in_the_status_until_it_is_ended(fedclient: Command, home: PlantHome) -> None:
    assert fedclient("status", "--json").json["training"] is None
    assert fedclient("pause", "--for", "8h").code == 0
    found = fedclient("status", "--json").json["training"]
    assert found["kind"] == "paused" and found["until"] == pytest.approx(time.time() + 8 * 3600, abs=60)
    assert "`fedclient resume` ends that" in fedclient("status").out
    assert "training may run again" in fedclient("resume").err
    assert "was not paused" in fedclient("resume").err
    assert not PauseFile(home.folder).path.exists()


@pytest.mark.parametrize("text", ["8", "h", "-1h", "0m", "eight hours"])
def test_a_time_that_is_none_is_refused(fedclient: Command, home: PlantHome, text: str) -> None:
    assert fedclient("pause", f"--for={text}").code == 10
    assert not PauseFile(home.folder).path.exists()


def test_the_status_tells_rounds_versions_and_what_to_mend(fedclient: Command, home: PlantHome) -> None:
    status = NodeStatus(home)
    status.set_state("joined", "at hq:9092")
    status.put(round={"run": "r", "round": 3, "of": 20, "accuracy": 0.931, "loss": 0.5})
    status.put(version={"number": 5, "version": "05" * 32, "outcome": "refused", "why": "two escapes more"})
    status.problem("versions", "no space left")
    move = {"version": "04" * 32, "number": 4, "at": 0.0, "event": "activated", "serial": 4}
    write_json(home.folder / "deployments" / "current.json", {"move": move})
    write_json(home.report_path, {"counts": {"pit": 7}})
    SettingsFile(home.folder).path.write_text("[training]\nhour = 3\n")
    text = fedclient("status").out
    for words in (
        "plant-a of steel",
        "not running",
        "round 3 of 20, accuracy of what was received 93.1 %",
        "on the line: version 4 (040404040404)",
        "published: version 5 (050505050505), refused: two escapes more",
        "7 pit",
        "to mend: versions: no space left",
        "to mend: thresholds: no class is good, so nothing passes on this line",
        "to mend: settings: ",
    ):
        assert words in text


def test_a_plant_that_was_shut_out_is_not_told_to_come_back(fedclient: Command, home: PlantHome) -> None:
    NodeStatus(home).set_state("refused", "this plant was revoked; ask headquarters for a new join token")
    text = fedclient("status").out
    assert "not running: it was not admitted: this plant was revoked; ask headquarters" in text
    assert "fedclient join" not in text


def test_what_the_line_really_answers_with_is_shown_while_its_process_runs(
    fedclient: Command, home: PlantHome
) -> None:
    said = {"number": 1, "version": "01" * 32, "problem": "cannot use version 2: damaged", "at": 0.0}
    write_json(home.folder / "line" / "serve.json", said)
    words = "the line answers: version 1; cannot use version 2: damaged"
    assert words not in fedclient("status").out  # what a killed process left
    with Occupied(home.folder / "line" / "serve.lock", "the line"):
        assert words in fedclient("status").out
        assert fedclient("status", "--json").json["serving"]["number"] == 1


def test_a_running_plant_is_shown_with_its_process(fedclient: Command, home: PlantHome) -> None:
    with home.occupied():
        NodeStatus(home).set_state("idle")
        found = fedclient("status", "--json").json
    assert found["running"] is True and found["status"]["state"] == "idle"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("join",), 61),
        (("join", "nonsense"), 64),
        (("join", "--hours", "22-6"), 10),
        (("join", "--load-limit", "900"), 10),
        (("join", "--data", "nowhere"), 21),
        (("join", "--worker-python", "no-such-python"), 10),
        (("doctor", "nonsense"), 64),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_begins(
    fedclient: Command, tmp_path: Path, request: pytest.FixtureRequest, words: tuple[str, ...], code: int
) -> None:
    if len(words) > 2:
        request.getfixturevalue("home")
    assert fedclient(*words).code == code
    assert not (tmp_path / "home" / "status.json").exists()


def test_a_token_may_come_through_standard_input(fedclient: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("fedspect1.no-token\n"))
    ended = fedclient("join", "-")
    assert ended.code == 64 and "18 characters" in ended.err


def test_a_token_that_is_typed_is_not_shown(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if not pid:
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "FEDSPECT_HOME": str(tmp_path)}
        os.execve(sys.executable, [sys.executable, "-m", "fedclient.cli", "join", "-"], environment)
    shown = b""
    with os.fdopen(terminal, "r+b", buffering=0) as screen, contextlib.suppress(
        OSError
    ):  # at the end Linux says EIO
        while more := screen.read(1024):
            if b"token" in more and b"token" not in shown:
                screen.write(b"fedspect1.no-token\n")
            shown += more
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 64
    assert b"18 characters" in shown and b"fedspect1.no-token" not in shown


def test_stopping_a_plant_that_does_not_run_says_so(fedclient: Command, home: PlantHome) -> None:
    ended = fedclient("stop")
    assert ended.code == 0 and "not running" in ended.err


def test_leaving_without_headquarters_forgets_the_key_and_nothing_else(
    fedclient: Command, home: PlantHome, tmp_path: Path
) -> None:
    home.key()
    assert fedclient("leave", "--forget").code == 0
    assert not home.key_path.exists() and not home.membership_path.exists()
    assert (tmp_path / "pictures" / "pit" / "1.png").exists()


def test_the_doctor_answers_json_and_ends_with_the_first_failures_code(
    fedclient: Command, home: PlantHome, tmp_path: Path
) -> None:
    home.membership_path.unlink()
    ended = fedclient("doctor", "--json", "--data", tmp_path / "nowhere", "--worker-python", sys.executable)
    found = {check["name"]: check for check in ended.json}
    assert found["pictures"]["level"] == "failure" and ended.code == found["pictures"]["exit_code"] == 21
    assert found["node"]["level"] == "ok"
