"""The worker as a process of its own behind its socket, with real pictures of 64 px and a tiny model."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import grpc
import numpy as np
import pytest
from PIL import Image

from fedclient.node import worker_client as worker_link
from fedclient.node.worker_client import WorkerClient, _socket_folder
from fedclient.yield_policy import PauseFile
from fedspect.errors import ConnectionLostError, DamagedFileError, DataError, WorkerError, YieldedError
from fedspect.model import freeze, head_state, load_base
from fedspect.model.base import save_base
from fedspect.model.network import build_network
from fedspect.protocol.grpc_services import WORKER, Stub
from fedspect.protocol.worker_pb2 import AboutRequest
from fedspect.update.round_messages import PlantDescription, RoundReply, RoundTask
from fedspect.update.schema import version_of

CLASSES = ["plain", "striped"]
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    network = build_network("cdnv2-a", 2, channels=1, form="condensed", seed=1)
    save_base(folder / "base", network, classes=CLASSES, input_size=64, mean=[0.5], std=[0.25], provenance={})
    random = np.random.default_rng(0)
    for name in CLASSES:
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(0, 255, (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
    (folder / "pictures" / "plain" / "torn.png").write_bytes(b"not a picture")
    return folder


def settings(site: Path, folder: Path, **more: Any) -> Path:
    content = {
        "plant": "plant-a",
        "classes": CLASSES,
        "data": str(site / "pictures"),
        "base": str(site / "base"),
        "state": str(folder / "state"),
        "cache": str(folder / "cache"),
        "training": {"batch_size": 4},
        **more,
    }
    path = folder / "worker.json"
    path.write_text(json.dumps(content))
    plant = folder / "plant.toml"
    if not plant.exists():  # beside busy programs a worker that steps back takes ten times as long
        plant.write_text("[device]\nnice = 0\n")
    return path


@pytest.fixture(scope="module")
def shared(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[WorkerClient, List[str]]]:
    """One worker for the tests that do not mind company."""
    folder = tmp_path_factory.mktemp("worker")
    restarts: List[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("OMP_NUM_THREADS", "1")
        link = WorkerClient(settings(site, folder), folder / "log", on_restart=restarts.append)
        link.inspect()
        yield link, restarts
        link.close()


def task(description: PlantDescription, **more: Any) -> bytes:
    given: Dict[str, Any] = {
        "run_id": "run-1",
        "round": 1,
        "total_rounds": 2,
        "base_hash": description.base_hash,
        "version": description.holds or first_version(description),
        "payload_kind": "none",
        "reply_encoding": "float32",
    }
    return RoundTask(**{**given, **more}).to_bytes()


VERSIONS: Dict[str, str] = {}


def first_version(description: PlantDescription) -> str:
    return VERSIONS["start"]


@pytest.fixture(scope="module", autouse=True)
def start_version(site: Path) -> None:
    network = load_base(site / "base").network(CLASSES, seed=0)
    freeze(network, network.default_freeze_levels)
    head = head_state(network, network.default_freeze_levels)
    VERSIONS["start"] = version_of({name: value.numpy() for name, value in head.items()})


def test_the_site_report_counts_and_names_what_is_wrong(shared: Tuple[WorkerClient, List[str]]) -> None:
    report = shared[0].inspect()
    assert report["counts"] == {"plain": 8, "striped": 8}
    assert sum(report["sides"].values()) == 16
    assert sum(report["problems"].values()) == 1
    assert report["examples"][0]["name"] == "plain/torn.png"


def test_a_rounds_work_goes_through_the_socket_and_its_reply_comes_back(
    shared: Tuple[WorkerClient, List[str]],
) -> None:
    link, _ = shared
    description = PlantDescription.from_bytes(link.describe())
    reply = RoundReply.from_bytes(link.work(task(description)))
    assert reply.error is None, reply.error
    assert reply.plant == "plant-a" and reply.trained and reply.num_examples > 0


def test_only_its_user_can_open_the_socket(shared: Tuple[WorkerClient, List[str]]) -> None:
    folder = shared[0]._folder
    assert folder is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "worker.sock").stat().st_mode) & 0o077 == 0


def test_who_asks_while_it_works_is_told_so(shared: Tuple[WorkerClient, List[str]]) -> None:
    link, _ = shared
    description = PlantDescription.from_bytes(link.describe())
    results: List[Any] = []
    long_task = task(description, local_epochs=40, round=2, run_id="run-busy")

    def work() -> None:
        while not results:
            with contextlib.suppress(WorkerError):  # the question below may be first
                results.append(link.work(long_task))

    thread = threading.Thread(target=work)
    thread.start()
    with pytest.raises(WorkerError, match="at work already"):
        for _ in range(2000):
            link.describe()
            time.sleep(0.01)
    thread.join()
    assert RoundReply.from_bytes(results[0]).error is None


@pytest.mark.slow
def test_a_worker_killed_in_training_is_started_again_and_repeats_the_round(
    site: Path, tmp_path: Path
) -> None:
    restarts: List[str] = []
    seen = threading.Event()

    def on_progress(stage: str, done: int, total: int) -> None:
        if stage == "training":
            seen.set()

    link = WorkerClient(
        settings(site, tmp_path), tmp_path / "log", on_progress=on_progress, on_restart=restarts.append
    )
    try:
        description = PlantDescription.from_bytes(link.describe())
        results: List[bytes] = []
        work = task(description, local_epochs=30)
        thread = threading.Thread(target=lambda: results.append(link.work(work)))
        thread.start()
        assert seen.wait(600)
        first = link.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        thread.join(600)
        reply = RoundReply.from_bytes(results[0])
        assert reply.error is None and reply.trained
        assert len(restarts) == 1 and link.pid != first
    finally:
        link.close()


@pytest.mark.slow
def test_closing_ends_the_worker_in_the_middle_of_its_work(site: Path, tmp_path: Path) -> None:
    seen = threading.Event()
    link = WorkerClient(settings(site, tmp_path), tmp_path / "log", on_progress=lambda *_: seen.set())
    description = PlantDescription.from_bytes(link.describe())
    failures: List[BaseException] = []

    def work() -> None:
        try:
            link.work(task(description, local_epochs=500))
        except WorkerError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    seen.clear()
    thread.start()
    assert seen.wait(600)
    pid, folder = link.pid, link._folder
    link.close()
    thread.join(60)
    assert len(failures) == 1
    assert pid is not None and not runs(pid)
    assert folder is not None and not folder.exists()


@pytest.mark.slow
def test_a_round_is_given_back_in_the_middle_and_its_answer_is_the_same_later(
    site: Path, tmp_path: Path, shared: Tuple[WorkerClient, List[str]]
) -> None:
    mark = PauseFile(tmp_path)
    (tmp_path / "plant.toml").write_text("[training]\npatience = 0\n[device]\nnice = 0\n")

    def on_progress(stage: str, done: int, total: int) -> None:
        if stage == "training":
            mark.put(since=time.time())

    link = WorkerClient(settings(site, tmp_path), tmp_path / "log", on_progress=on_progress)
    try:
        description = PlantDescription.from_bytes(link.describe())
        work = task(description, local_epochs=15, run_id="run-paused")
        with pytest.raises(YieldedError, match="paused by the plant's engineer"):
            link.work(work)
        pid = link.pid
        assert pid is not None, "it stays warm"
        mark.remove()
        link._on_progress = lambda stage, done, total: None
        reply = RoundReply.from_bytes(link.work(work))
        assert link.pid == pid and reply.error is None
        undisturbed = RoundReply.from_bytes(shared[0].work(work))
        assert reply.payload == undisturbed.payload
    finally:
        link.close()


@pytest.mark.slow
def test_a_trainer_that_takes_too_much_memory_gives_its_round_and_the_memory_back(
    site: Path, tmp_path: Path
) -> None:
    (tmp_path / "plant.toml").write_text("[training]\nmemory_limit = 60\n[device]\nnice = 0\n")
    link = WorkerClient(settings(site, tmp_path), tmp_path / "log")
    try:
        description = PlantDescription.from_bytes(link.describe())
        first = link.pid
        with pytest.raises(YieldedError, match="its limit is 60"):
            link.work(task(description))
        assert first is not None
        deadline = time.monotonic() + 60
        while runs(first):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (tmp_path / "plant.toml").write_text("[device]\nnice = 0\n")
        assert RoundReply.from_bytes(link.work(task(description))).error is None
        assert link.pid != first
    finally:
        link.close()


@pytest.mark.slow
def test_training_steps_back_from_other_programs(site: Path, tmp_path: Path) -> None:
    (tmp_path / "plant.toml").write_text("[device]\nnice = 3\n")
    link = WorkerClient(settings(site, tmp_path), tmp_path / "log")
    try:
        link.about()
        assert link.pid is not None
        assert os.getpriority(os.PRIO_PROCESS, link.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)
    finally:
        link.close()


@pytest.mark.slow
def test_a_worker_leaves_with_its_node(site: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom fedclient.node.worker_client import WorkerClient\n"
        f"link = WorkerClient(Path({str(settings(site, tmp_path))!r}), Path({str(tmp_path / 'log')!r}))\n"
        "link.about()\nprint(link.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        pid = int(node.stdout.readline())
        node.kill()
    deadline = time.monotonic() + 60
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"data": "/nowhere"}, DataError),
        ({"surprise": 1}, DamagedFileError),
        ({"classes": ["other", "another"]}, DataError),
    ],
)
def test_what_the_worker_cannot_use_reaches_the_node_as_the_same_error(
    site: Path, tmp_path: Path, change: Dict[str, Any], error: type
) -> None:
    link = WorkerClient(settings(site, tmp_path, **change), tmp_path / "log")
    try:
        with pytest.raises(error):
            link.inspect()
    finally:
        link.close()


def test_an_interpreter_without_fedspect_is_named_with_its_last_words(site: Path, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no module named torch >&2\nexit 3\n")
    broken.chmod(0o755)
    link = WorkerClient(settings(site, tmp_path), tmp_path / "log", python=str(broken))
    with pytest.raises(WorkerError, match="no module named torch"):
        link.about()
    link.close()


@pytest.mark.slow
def test_a_worker_that_does_not_come_up_is_ended_and_the_next_question_starts_another(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_link, "READY_WITHIN", 0.0)
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    link = WorkerClient(settings(site, tmp_path), tmp_path / "log", python=str(slow))
    for _ in range(2):
        with pytest.raises(WorkerError, match="does not come up"):
            link.about()
        assert link.pid is None
    link.close()


@pytest.mark.slow
def test_an_interpreter_that_is_not_there_is_named(site: Path, tmp_path: Path) -> None:
    link = WorkerClient(settings(site, tmp_path), tmp_path / "log", python=str(tmp_path / "nothing"))
    with pytest.raises(WorkerError, match="nothing") as caught:
        link.about()
    assert "--worker-python" in (caught.value.remedy or "")
    link.close()


@pytest.mark.slow
def test_a_strangers_call_on_the_socket_path_answers_nothing(tmp_path: Path) -> None:
    with grpc.insecure_channel(f"unix:{tmp_path}/none.sock") as channel, pytest.raises(ConnectionLostError):
        Stub(channel, WORKER).about(AboutRequest(), timeout=2)


def test_a_socket_lies_where_its_path_is_short_enough_whatever_tmpdir_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("t" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    folder = _socket_folder()
    try:
        assert len(str(folder / "worker.sock")) <= 107 and folder.stat().st_mode & 0o777 == 0o700
    finally:
        folder.rmdir()
    monkeypatch.setattr("fedclient.node.worker_client.LONGEST_PARENT", 3)
    with pytest.raises(WorkerError, match=r"worker's socket.*TMPDIR"):
        _socket_folder()
