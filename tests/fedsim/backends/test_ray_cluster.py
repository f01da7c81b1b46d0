"""A simulation joins a Ray cluster that is there already: a head and a second node, as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_jobs import head_of, linear_job
from fedsim.backends import run_backend
from fedsim.backends.ray import RAY_ENVIRONMENT
from fedspect.errors import FederationError, WorkspaceError

pytest.importorskip("ray")
LOOPBACK = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def start_node(log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """``ray start`` that stays, so that ending it ends all that it started."""
    ray = Path(sys.executable).with_name("ray")
    own = ("--block", "--num-cpus=1", f"--node-ip-address={LOOPBACK}", "--disable-usage-stats")
    ports = [
        f"--{name}-port={free_port()}"
        for name in ("dashboard-agent-listen", "metrics-export", "object-manager")
    ]
    path = os.pathsep.join(each for each in sys.path if each)
    environment = {**os.environ, **RAY_ENVIRONMENT, "PYTHONPATH": path}
    environment.pop("RAY_ADDRESS", None)
    with log.open("wb") as output:
        return subprocess.Popen(
            [ray, "start", *arguments, *own, *ports], stdout=output, stderr=output, env=environment
        )


def wait_for(log: Path, words: str, process: subprocess.Popen[bytes]) -> re.Match[str]:
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        found = re.search(words, log.read_text(errors="replace"))
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(log.read_text(errors="replace"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a head with one processor, and a second node with another."""
    logs = tmp_path_factory.mktemp("cluster")
    place = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the path of a socket may have 107 characters
    port = free_port()
    head_ports = (f"--port={port}", f"--ray-client-server-port={free_port()}", "--include-dashboard=false")
    started = [start_node(logs / "head", "--head", *head_ports, f"--temp-dir={place}")]
    try:
        wait_for(logs / "head", "Ray runtime started", started[0])
        address = f"{LOOPBACK}:{port}"
        started.append(start_node(logs / "node", f"--address={address}"))
        wait_for(logs / "node", "Ray runtime started", started[1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ADDRESS", address)
            yield address
    finally:
        for process in reversed(started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_plants_work_on_every_node_and_come_to_the_same_bits(
    cluster: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_backend("local", linear_job(tmp_path / "local"))
    (tmp_path / "ray").mkdir()
    run_backend(
        "ray", linear_job(tmp_path / "ray", worker_factory="engine_jobs:make_worker_that_names_its_node")
    )
    assert head_of(tmp_path / "ray") == head_of(tmp_path / "local")
    assert len(list((tmp_path / "ray" / "nodes").iterdir())) == 2
    said = capfd.readouterr().err
    assert f"{cluster}: 2 nodes, 2 processors" in said and "must lie at the same place" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_node_does_not_see_is_named_before_the_first_round(cluster: str, tmp_path: Path) -> None:
    job = linear_job(tmp_path, shared=(tmp_path / "pictures",))
    with pytest.raises(WorkspaceError, match=r"pictures on \d+"):
        run_backend("ray", job)
    assert not list(tmp_path.glob(".ray-*"))


def test_a_cluster_that_does_not_answer_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{LOOPBACK}:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(FederationError, match=rf"cannot be joined.*{address}.*refused"):
        run_backend("ray", linear_job(tmp_path))
