"""The line under load while its engine changes, while clients send junk, and while its process is killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List

import grpc
import numpy as np
import pytest

from fedclient.worker.line.home import LineHome
from fedclient.worker.line.serving.protocol_messages import message
from fedclient.worker.line.watch.journal import key_of
from line_parts import (
    Serving,
    activate,
    command,
    copy_home,
    environment,
    grey,
    infer_request,
    make_home,
    png,
    probabilities,
)

CLIENTS = 16
REQUESTS = 10_000
TONES = (20, 60, 90, 110, 128, 150, 170, 200)
WANTED = {
    number: {tone: probabilities(np.array([tone]), number)[0] for tone in TONES} for number in (1, 2, 3)
}
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> LineHome:
    return make_home(tmp_path_factory.mktemp("line-faults") / "home")


@pytest.fixture
def home(made_home: LineHome, tmp_path: Path) -> LineHome:
    copy = copy_home(made_home, tmp_path / "home")
    activate(copy, 1)
    return copy


class Client:
    """A client on its own channel that checks each answer against the version that it names."""

    def __init__(self, address: str, seed: int) -> None:
        self.address = address
        self.random = random.Random(seed)
        self.versions: List[int] = []
        self.retries = 0
        # its own channel: channels of one process share a connection otherwise
        self.channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 5000),  # what a try to connect may take
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )
        self.call = self.channel.unary_unary(
            METHOD,
            request_serializer=message("ModelInferRequest").SerializeToString,
            response_deserializer=message("ModelInferResponse").FromString,
        )

    def ask(self, *, until: float = 0.0) -> None:
        """One request with one or two pictures; asked again until ``until`` (monotonic) when nobody is there."""
        tones = [self.random.choice(TONES) for _ in range(self.random.choice((1, 1, 2)))]
        if self.random.random() < 0.5:
            request = infer_request([png(grey(tone)) for tone in tones])
        else:
            request = infer_request(pixels=np.stack([grey(tone)[None] for tone in tones]))
        again = False
        while True:
            try:
                # grpcio 1.70 makes a connection only while a call waits for it
                reply = self.call(request, timeout=30, wait_for_ready=again)
                break
            except grpc.RpcError as error:
                gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
                assert gone and time.monotonic() < until, error
                self.retries += 1
                again = True
                time.sleep(0.02)
        number = int(reply.model_version)
        self.versions.append(number)
        raw = {output.name: content for output, content in zip(reply.outputs, reply.raw_output_contents)}
        seen = np.frombuffer(raw["probabilities"], "<f4").reshape(len(tones), 3)
        np.testing.assert_allclose(seen, [WANTED[number][tone] for tone in tones], atol=1e-5)


def run_clients(clients: List[Client], each: Any) -> None:
    with ThreadPoolExecutor(len(clients)) as pool:
        for done in [pool.submit(each, client) for client in clients]:
            done.result()


@pytest.mark.slow
def test_ten_thousand_requests_from_sixteen_clients_see_swaps_and_none_is_lost_or_wrong(
    home: LineHome,
) -> None:
    with Serving(home) as serving:
        clients = [Client(serving.address, seed) for seed in range(CLIENTS)]
        ended = threading.Event()

        def swap() -> None:
            for number in [2, 3, 1] * 1000:
                if ended.wait(0.7):
                    return
                activate(home, number)

        swapper = threading.Thread(target=swap)
        swapper.start()
        try:
            run_clients(clients, lambda client: [client.ask() for _ in range(REQUESTS // CLIENTS)])
        finally:
            ended.set()
            swapper.join()
        answered = [number for client in clients for number in client.versions]
        assert len(answered) == REQUESTS and set(answered) == {1, 2, 3}
        memory = _memory(serving.process.pid)
        assert serving.end() == 0
        assert memory < 600 << 20
        assert "defect" not in serving.log.read_text()


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no figure for memory")


@pytest.mark.slow
def test_a_line_that_is_killed_under_load_comes_back_and_no_client_gives_up(home: LineHome) -> None:
    first = Serving(home)
    address, more = first.address, ("--no-http",)
    clients = [Client(address, seed) for seed in range(8)]
    serving = [first]

    def kill() -> None:
        for _ in range(2):
            time.sleep(0.5)
            serving[-1].process.send_signal(signal.SIGKILL)
            serving[-1].process.wait()
            serving.append(Serving(home, *more, address=address))

    killer = threading.Thread(target=kill)
    killer.start()
    try:

        def work(client: Client) -> None:
            until = time.monotonic() + 100
            while killer.is_alive() or len(client.versions) < 50:
                client.ask(until=until)

        run_clients(clients, work)
        killer.join()
        assert sum(client.retries for client in clients) > 0
        assert len(serving) == 3 and serving[-1].end() == 0
    finally:
        for each in serving:
            each.process.kill()
            each.process.wait()


def test_ending_the_process_answers_what_is_under_way(home: LineHome) -> None:
    with Serving(home) as serving:
        clients = [Client(serving.address, seed) for seed in range(8)]
        answered: Dict[int, str] = {}

        def work(client: Client) -> None:
            try:
                while True:
                    client.ask()
            except AssertionError as error:  # the client's own: refused, not wrong
                answered[id(client)] = str(error)

        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(work, client) for client in clients]
            while not all(client.versions for client in clients):
                assert not answered
                time.sleep(0.05)
            assert serving.end() == 0
            for job in jobs:
                job.result()
        assert all("UNAVAILABLE" in words or "CANCELLED" in words for words in answered.values())
        assert "Mismatch" not in "".join(answered.values())


def _raw_call(serving: Serving, content: bytes) -> grpc.StatusCode:
    """Send bytes as a request; the status that comes back."""
    with serving.channel() as channel:
        call = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        try:
            call(content, timeout=20)
            return grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
            assert isinstance(code, grpc.StatusCode)
            return code


def _requests_nobody_should_send() -> Iterator[Any]:
    for datatype, name in (("FP32", "pixels"), ("INT64", "picture"), ("UINT8", "picture"), ("", "")):
        request = infer_request()
        request.inputs.add(name=name, datatype=datatype, shape=[1, 1, 16, 16])
        request.raw_input_contents.append(bytes(1024))
        yield request
    huge = infer_request([png(grey(1))])
    huge.inputs[0].shape[0] = 2**62
    yield huge
    claims = infer_request(pixels=np.zeros((1, 1, 4, 4), np.uint8))
    claims.inputs[0].shape[2] = claims.inputs[0].shape[3] = 2**31
    yield claims
    negative = infer_request(pixels=np.zeros((1, 1, 4, 4), np.uint8))
    negative.inputs[0].shape[2] = -4
    yield negative
    bomb = bytearray(png(grey(1)))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # a header that claims 3.6 thousand million pixels
    yield infer_request([bytes(bomb)])
    yield infer_request([png(grey(1, 5000))])  # 25 million pixels in a few kilobytes


def test_junk_oversized_and_wrong_requests_are_refused_and_others_are_answered_meanwhile(
    home: LineHome,
) -> None:
    with Serving(home) as serving:
        stop = threading.Event()
        good = Client(serving.address, 0)

        def work() -> None:
            while not stop.is_set():
                good.ask()

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            try:
                numbers = np.random.default_rng(0)
                for size in (0, 1, 7, 100, 5000):
                    assert _raw_call(serving, numbers.bytes(size)) in (
                        grpc.StatusCode.INTERNAL,  # gRPC's own word for bytes that are no message
                        grpc.StatusCode.INVALID_ARGUMENT,
                    )
                for request in _requests_nobody_should_send():
                    code = _raw_call(serving, request.SerializeToString())
                    assert code is grpc.StatusCode.INVALID_ARGUMENT, request
                assert _raw_call(serving, bytes(33 << 20)) is grpc.StatusCode.RESOURCE_EXHAUSTED
                with serving.channel() as channel:
                    unknown = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelUnload")
                    with pytest.raises(grpc.RpcError) as caught:
                        unknown(b"", timeout=20)
                    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            finally:
                stop.set()
            working.result()
        assert good.versions and _memory(serving.process.pid) < 600 << 20
        assert serving.end() == 0


def test_a_deployment_that_does_not_open_leaves_the_line_as_it_is(home: LineHome) -> None:
    with Serving(home) as serving:
        client = Client(serving.address, 0)
        damaged = next(each for each in home.deployments.list() if each.number == 2)
        file = home.store.get(damaged.engines["head"]).file
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(bytes(content))
        activate(home, 2)
        deadline = time.monotonic() + 20
        while "cannot use version 2" not in serving.log.read_text():
            assert time.monotonic() < deadline
            client.ask()
        client.ask()
        assert set(client.versions) == {1}
        said = f"version 1; cannot use version {damaged.number}"
        ready = urllib.request.urlopen(f"http://{serving.addresses['http']}/health/ready", timeout=10)
        assert said in ready.read().decode()
        metrics = urllib.request.urlopen(f"http://{serving.addresses['http']}/metrics", timeout=10)
        assert "fedspect_line_problem 1.0" in metrics.read().decode()
        told = json.loads((home.line / "serve.json").read_text())
        assert told["number"] == 1 and "cannot use version 2" in told["problem"]
        home.deployments.rollback(who="a test", why="damaged")
        activate(home, 3)
        while client.versions[-1] != 3:
            assert time.monotonic() < deadline + 20
            client.ask()


@pytest.mark.slow
def test_a_camera_that_writes_slowly_while_the_watch_is_killed_loses_and_doubles_nothing(
    home: LineHome, tmp_path: Path
) -> None:
    folder, output = tmp_path / "camera", tmp_path / "verdicts.jsonl"
    folder.mkdir()
    arguments = ("watch", str(folder), "--every", "0.05", "--settle", "0.1", "--output", str(output))
    wanted: Dict[str, str] = {}
    ended = threading.Event()

    def camera() -> None:
        draw = random.Random(1)
        for number in range(40):
            tone = draw.choice((60, 128, 200))
            content = png(grey(tone, 60))
            name = f"{number:03d}.png"
            wanted[name] = {60: "dark", 128: "sound", 200: "bright"}[tone]
            path = folder / (name if number % 2 else f"{name}.part.png")
            with path.open("wb") as file:
                for start in range(0, len(content), 40):
                    file.write(content[start : start + 40])
                    file.flush()
                    time.sleep(0.005)
            if number % 2 == 0:
                path.rename(folder / name)
        ended.set()

    writer = threading.Thread(target=camera)
    writer.start()
    deadline = time.monotonic() + 120
    try:
        while not ended.is_set() or len(_rows(output)) < len(wanted):
            assert time.monotonic() < deadline, _rows(output)
            process = subprocess.Popen(
                command(*arguments),
                env=environment(home),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            before, end = len(_rows(output)), time.monotonic() + 20.0
            while time.monotonic() < end and len(_rows(output)) < min(before + 7, len(wanted) or 1):
                time.sleep(0.005)
            process.kill()
            process.wait()
    finally:
        writer.join()
    final = subprocess.run(
        command(*arguments, "--once"), env=environment(home), capture_output=True, timeout=60, check=False
    )
    assert final.returncode == 0 and final.stdout == b""
    rows = _rows(output)
    assert [row["seq"] for row in rows] == list(range(1, len(wanted) + 1))
    keys = [row["key"] for row in rows]
    assert len(set(keys)) == len(wanted)
    by_key = {key_of((folder / name).stat()): label for name, label in wanted.items()}
    assert {row["key"]: row["class"] for row in rows} == by_key


def _rows(path: Path) -> List[Dict[str, Any]]:
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
