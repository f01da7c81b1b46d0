"""How `fedserver start` ends when it cannot go on, in the foreground and with ``--detach``."""

from __future__ import annotations

import json
import os
import signal
import ssl
from pathlib import Path
from typing import Iterator

import pytest
from federation_parts import Federation, Process, make_pictures
from link_parts import PATIENCE, wait_for

import fedserver.enrolment.authority
from fedclient.node.home import PlantHome
from fedserver.workspace import Workspace
from fedspect.errors import ConnectionLostError, QuorumError, SettingsError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, rounds=1, gather=0.0)
    yield made
    made.close()


def test_a_run_that_gives_up_ends_at_once_and_with_its_own_exit_code(federation: Federation) -> None:
    federation.set(give_up=1.0)
    federation.workspace.chmod(0o755)
    server = federation.start()
    assert server.process.wait(PATIENCE) == QuorumError.exit_code, server.said
    assert "the closed form needs 2 plants and has 0" in server.said
    assert "going on" not in server.said and "Traceback" not in server.said
    assert federation.leftovers() == []
    assert "was open to other users (mode 755)" in server.said
    assert federation.workspace.stat().st_mode & 0o777 == 0o700


def test_a_start_in_the_background_ends_with_the_exit_code_of_one_in_the_foreground(
    federation: Federation,
) -> None:
    old = federation.workspace / "state" / "logs" / "server.log"
    old.write_text("what an earlier server said\n")
    federation.set(strategy="nonsense")
    answer = federation.fedserver("start", "--detach")
    assert answer.returncode == SettingsError.exit_code
    assert "nonsense" in answer.stderr and "earlier" not in answer.stderr


def test_a_start_in_the_background_after_a_kill_answers_when_its_own_server_is_up(
    federation: Federation,
) -> None:
    superlink_log = federation.workspace / "state" / "logs" / "superlink.log"
    for _ in range(2):
        answer = federation.fedserver("start", "--detach", "--no-rounds")
        assert answer.returncode == 0, answer.stderr
        running = json.loads(federation.fedserver("status", "--json").stdout)["running"]
        assert f"running as process {running['pid']};" in answer.stderr
        assert Path(f"/proc/{running['superlink']}").exists()
        os.kill(running["pid"], signal.SIGKILL)
        with superlink_log.open("a") as log:
            log.write("the cause of it\n")
    assert federation.fedserver("start", "--detach", "--no-rounds").returncode == 0
    assert superlink_log.read_text().count("the cause of it\n") == 2
    assert federation.fedserver("stop").returncode == 0


def test_a_token_stands_on_no_command_line_while_the_plant_runs(federation: Federation) -> None:
    server = federation.start("--no-rounds")
    server.wait_for("plants may join")
    make_pictures(federation.folder / "pictures", seed=1)
    token = federation.invite("plant-a")
    answer = federation.fedclient(
        "plant-a", "join", token, "--data", str(federation.folder / "pictures"), "--detach"
    )
    assert answer.returncode == 0, answer.stderr
    status = json.loads(federation.fedclient("plant-a", "status", "--json").stdout)["status"]
    assert f"as process {status['pid']};" in answer.stderr
    seen = Path(f"/proc/{status['pid']}/cmdline").read_bytes()
    assert b"join" in seen and token.encode() not in seen
    server.wait_for("plant-a is online")
    assert federation.fedclient("plant-a", "leave", "--yes").returncode == 0
    server.wait_for("plant-a left the federation")
    assert PlantHome(federation.home("plant-a")).occupied().holder() is None


def test_leaving_without_headquarters_leaves_the_plant_running(federation: Federation) -> None:
    server = federation.start("--no-rounds")
    server.wait_for("plants may join")
    plant = federation.join("plant-a", federation.invite("plant-a"))
    plant.wait_for("joined: at localhost")
    assert federation.fedserver("stop").returncode == 0
    answer = federation.fedclient("plant-a", "leave", "--yes")
    assert answer.returncode == ConnectionLostError.exit_code, answer.stderr
    assert plant.process.poll() is None


LOOKING_OFTEN = """
import fedserver.enrolment.endpoint
from fedserver.cli import main
fedserver.enrolment.endpoint.LOOK_CERTIFICATE = 0.5
main()
"""


def test_a_certificate_that_grows_old_is_renewed_while_the_server_runs(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    (federation.folder / "looking_often.py").write_text(LOOKING_OFTEN)
    monkeypatch.syspath_prepend(federation.folder)
    log = federation.folder / "start.log"
    words = ("looking_often", "start", "--no-rounds", "-w", str(federation.workspace))
    server = Process(log, *words)
    federation.processes.append(server)
    server.wait_for("plants may join")
    plant = federation.join("plant-a", federation.invite("plant-a"))
    server.wait_for("plant-a is online")
    opened = Workspace.open(federation.workspace)
    monkeypatch.setattr(
        fedserver.enrolment.authority, "SERVER_DAYS", fedserver.enrolment.authority.RENEW_DAYS - 1
    )
    opened.authority.issue_server_certificate(["localhost"])
    old = opened.authority.server_certificate_path.read_text()
    server.wait_for("opening the ports anew")
    wait_for(lambda: plant.said.count("joined: at localhost") == 2, "the plant to come back")
    new = opened.authority.server_certificate_path.read_text()
    network = opened.settings().network
    for port in (network.fleet_port, network.enrolment_port):
        assert ssl.get_server_certificate(("localhost", port)) in new
    assert new != old and plant.process.poll() is None
