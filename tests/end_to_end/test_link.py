"""Headquarters' SuperLink and plants' nodes as real processes over TLS, with no rounds on top."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Iterator

import grpc
import pytest
from flwr.cli.build import build_fab_from_files
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.proto.control_pb2_grpc import ControlStub
from link_parts import PATIENCE, Headquarters, NodeProcess, proxied, python_path, wait_for

from fedserver.enrolment.authority import Authority
from fedserver.flower.control_api import Control, ControlAddress, thin_bundle
from fedserver.flower.serverapp_process import claim
from fedserver.flower.superlink import SuperLink
from fedspect.errors import FederationError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def hq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headquarters]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path()["PYTHONPATH"])
        made = Headquarters(tmp_path_factory.mktemp("link"))
        made.start()
        yield made
        made.control.close()
        made.superlink.stop()


@pytest.fixture(scope="module")
def plants(hq: Headquarters) -> Iterator[list[NodeProcess]]:
    nodes = [NodeProcess(hq, "plant-a"), NodeProcess(hq, "plant-b")]
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_for("joined")
    yield nodes
    for node in nodes:
        node.stop()


def test_two_plants_answer_every_round_with_what_they_were_sent(
    hq: Headquarters, plants: list[NodeProcess]
) -> None:
    result = hq.run(plants=2, rounds=5)
    assert result["missing"] == 0
    assert len(result["results"]) == 10
    assert all(each["good"] for each in result["results"])
    assert {each["plant"] for each in result["results"]} == {node.node_id for node in plants}


def test_a_client_app_that_raises_answers_with_its_error_and_the_node_lives_on(
    hq: Headquarters, plants: list[NodeProcess]
) -> None:
    failed = hq.run(plants=2, fail=True)
    assert [each["error"] for each in failed["results"]] == ["RuntimeError: the press is stuck"] * 2
    assert all(each["good"] for each in hq.run(plants=2)["results"])


HOSTILE = """
from pathlib import Path
Path({marker!r}).write_text("the bundle ran on " + __name__)
from flwr.clientapp import ClientApp
app = ClientApp()
"""


def test_a_plant_never_runs_code_of_the_bundle_that_the_server_offers(
    hq: Headquarters, plants: list[NodeProcess], tmp_path: Path
) -> None:
    marker, out = tmp_path / "marker", tmp_path / "out.json"
    hostile = HOSTILE.format(marker=str(marker)).encode()
    bundle, _ = build_fab_from_files(
        {
            "pyproject.toml": (
                '[project]\nname = "hostile"\nversion = "1.0.0"\ndescription = "-"\nlicense = "Apache-2.0"\n'
                '[tool.flwr.app]\npublisher = "somebody"\n[tool.flwr.app.components]\n'
                'serverapp = "hostile.server:app"\nclientapp = "hostile.client:app"\n'
                f'[tool.flwr.app.config]\nplants = 2\nout = "{out}"\n'
            ).encode(),
            "hostile/__init__.py": b"",
            "hostile/server.py": b"import echo_server as installed\n\napp = installed.app\n",
            "hostile/client.py": hostile,
        }
    )
    run_id = hq.control.submit(bundle, {})
    hq.superlink.start_serverapp()
    wait_for(lambda: hq.control.state(run_id).over, "the end of the run")
    assert '"good": true' in out.read_text()  # the installed ClientApp answered
    assert not marker.exists()
    homes = [*hq.folder.rglob("apps"), *(Path.home() / ".flwr").glob("apps")]
    for home in homes:
        assert home == hq.superlink.folder / "apps" or not list(home.glob("somebody.hostile*"))


def test_a_reply_survives_a_cut_link_and_is_handed_in_when_it_is_back(hq: Headquarters) -> None:
    with proxied(hq.port) as proxy:
        node = NodeProcess(hq, "plant-cut")
        node.start(port=proxy.port)
        node.wait_for("joined")

        def cut_while_working() -> None:
            node.wait_for("working")
            proxy.cut()
            node.wait_for("lost")
            proxy.mend()

        cutter = threading.Thread(target=cut_while_working)
        cutter.start()
        result = hq.run(plants=1, seconds=1.0)
        cutter.join()
        assert any(each["plant"] == node.node_id and each["good"] for each in result["results"])
        assert node.stop() == 0
    hq.control.unregister(node.node_id or 0)


def test_a_killed_node_is_back_at_once_under_its_number(hq: Headquarters) -> None:
    node = NodeProcess(hq, "plant-killed")
    node.start()
    node.wait_for("joined")
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    # The server still holds it for online; the remembered number ends the old self.
    node.start()
    node.wait_for("joined")
    assert node.node_id in hq.control.online()
    assert (node.folder / "node_id").read_text() == str(node.node_id)
    node.stop()
    assert node.node_id not in hq.control.online()


def test_a_node_killed_at_work_and_started_again_is_waited_for_and_answers(hq: Headquarters) -> None:
    node = NodeProcess(hq, "plant-again")
    node.start()
    node.wait_for("joined")

    def kill_at_work() -> None:
        node.wait_for("working")
        assert node.process is not None
        node.process.kill()
        node.process.wait()
        node.start()

    killer = threading.Thread(target=kill_at_work)
    killer.start()
    result = hq.run(plants=1, seconds=1.0)
    killer.join()
    # Were its number given up for a moment, Flower would answer for it that it is not available.
    assert [each["good"] for each in result["results"] if each["plant"] == node.node_id] == [True]
    node.stop()


def test_a_device_that_was_never_registered_is_refused_in_one_line(hq: Headquarters) -> None:
    node = NodeProcess(hq, "stranger", registered=False)
    node.start()
    assert node.process is not None and node.process.wait(PATIENCE) == 3
    wait_for(lambda: node.saw("refused"), "the refusal")
    assert "this key is no plant's" in node.states[-1][1]


def test_a_revoked_device_is_shut_out_while_it_is_connected(hq: Headquarters) -> None:
    node = NodeProcess(hq, "plant-revoked")
    node.start()
    node.wait_for("joined")
    hq.control.unregister(node.node_id or 0)
    assert node.process is not None and node.process.wait(PATIENCE) == 3


@pytest.mark.parametrize("offset", [3600.0, -3600.0])
def test_a_clock_an_hour_off_is_refused_and_the_measured_offset_mends_it(
    hq: Headquarters, offset: float
) -> None:
    node = NodeProcess(hq, f"plant-clock{offset:.0f}")
    node.start(clock_offset=offset)
    assert node.process is not None and node.process.wait(PATIENCE) == 3
    wait_for(lambda: node.saw("refused"), "the refusal")
    assert "Invalid timestamp" in node.states[-1][1]
    node.start()  # the offset that joining measures takes it back to headquarters' time
    node.wait_for("joined")
    node.stop()


def test_a_server_of_another_authority_is_never_spoken_to(hq: Headquarters, tmp_path: Path) -> None:
    other = Headquarters.__new__(Headquarters)
    other.folder, other.port = tmp_path, hq.port
    authority = Authority(tmp_path / "authority")
    authority.create("other")
    other.authority_pem = authority.certificate_path
    other.control = hq.control
    node = NodeProcess(other, "plant-foreign")
    node.start()
    node.wait_for("lost")
    assert not node.saw("joined")
    assert node.stop() == 0
    hq.control.unregister(node.node_id or 0)


@pytest.mark.parametrize("secret", ["", "wrong"])
def test_nobody_starts_a_run_without_the_secret(hq: Headquarters, secret: str) -> None:
    where = ControlAddress(hq.superlink.control_address.address, secret)
    control = Control(where, hq.authority_pem.read_bytes())
    with pytest.raises(FederationError) as caught:
        control.submit(b"anything", {})
    assert "unauthenticated" in str(caught.value.seen)
    control.close()


def test_nobody_takes_a_serverapps_place_without_the_secret(hq: Headquarters) -> None:
    run_id = hq.control.submit(thin_bundle("echo_server", {"out": "nowhere"}), {})
    with pytest.raises(grpc.RpcError) as caught:
        claim(hq.superlink.serverapp_api, b"wrong")
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert hq.control.state(run_id).status == "pending"
    hq.control.stop(run_id)


def test_the_control_api_answers_nothing_without_tls(hq: Headquarters) -> None:
    with grpc.insecure_channel(hq.superlink.control_address.address) as channel, pytest.raises(grpc.RpcError):
        ControlStub(channel).ListNodes(ListNodesRequest(), timeout=5.0)


def test_garbage_on_the_open_port_leaves_the_federation_running(
    hq: Headquarters, plants: list[NodeProcess]
) -> None:
    for garbage in (b"", b"\0" * 5000, b"GET / HTTP/1.1\r\n\r\n", os.urandom(100_000)):
        with socket.create_connection(("127.0.0.1", hq.port), timeout=5.0) as connection:
            try:
                connection.sendall(garbage)
                connection.settimeout(2.0)
                connection.recv(100)
            except OSError:
                pass
    assert all(each["good"] for each in hq.run(plants=2)["results"])


def test_a_fleet_port_in_use_is_named(hq: Headquarters, tmp_path: Path) -> None:
    second = SuperLink(tmp_path, hq.workspace.authority, tmp_path / "log")
    with pytest.raises(FederationError) as caught:
        second.start("127.0.0.1", hq.port)
    assert "fleet_port" in (caught.value.remedy or "")
    assert str(hq.port) in str(caught.value.seen)


START_AND_HANG = """
import sys, time
from pathlib import Path
from fedserver.workspace import Workspace
from fedserver.flower.superlink import SuperLink, free_port
workspace = Workspace.open(Path(sys.argv[1]))
superlink = SuperLink(workspace.state / "flower", workspace.authority, workspace.logs / "superlink.log")
superlink.start("127.0.0.1", free_port())
print(superlink.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_server_leaves_no_process_behind(tmp_path: Path) -> None:
    hq = Headquarters(tmp_path)
    command = [sys.executable, "-c", START_AND_HANG, str(hq.workspace.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=python_path()) as server:
        assert server.stdout is not None
        superlink = int(server.stdout.readline())
        assert superlink in hq.superlink.marked()
        server.send_signal(signal.SIGKILL)
    hq.superlink.sweep()
    assert hq.superlink.marked() == []
