"""What the follower settles on, without a serving process."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator, List

import grpc
import numpy as np
import pytest

from fedclient.worker.deployments import Deployment
from fedclient.worker.engines.model import LineAnswer, LineModel
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.reload import reloader as following
from fedclient.worker.line.reload.reloader import MOST_FAILURES, Reloader
from fedclient.worker.line.reload.serving_status import ServingStatus
from fedclient.worker.line.serving.dynamic_batcher import DynamicBatcher
from fedclient.worker.line.serving.model_leases import ServedModel
from fedclient.worker.line.serving.protocol_messages import message
from fedclient.worker.line.serving.server import Listening, serve
from fedclient.worker.line.settings import LineSettings, read_settings
from fedspect.errors import EngineError
from line_parts import activate, grey, infer_request, png


class Failing:
    """A model whose engine can be made to fail, as a GPU does for good: but not for practice."""

    def __init__(self, model: LineModel, followed: Followed) -> None:
        self.version, self.number, self.classes = model.version, model.number, model.classes
        self.preprocessing, self.close = model.preprocessing, model.close
        self._model, self._followed = model, followed

    def answer(self, pixels: np.ndarray) -> LineAnswer:
        if self._followed.fails and pixels[0, 0, 0, 0] != 128:
            raise EngineError("an illegal memory access was encountered")
        return self._model.answer(pixels)


class Followed:
    """A line and its follower, with what was told of them."""

    def __init__(self, home: LineHome) -> None:
        self.home = home
        self.line = DynamicBatcher(read_settings(home.line).serving)
        self.models: List[int] = []
        self.settings: List[LineSettings] = []
        self.standings: List[ServingStatus] = []
        self.opened: List[Failing] = []
        self.broken: List[bool] = []
        self.fails = False
        self.reloader = Reloader(
            self.line,
            home.deployments,
            self.open,
            home.line,
            on_model=lambda model, deployment: self.models.append(deployment.number),
            on_settings=self.settings.append,
            on_broken=lambda: self.broken.append(True),
            on_status=self.standings.append,
        )

    def open(self, deployment: Deployment) -> ServedModel:
        model = Failing(self.home.open(deployment), self)
        self.opened.append(model)
        return model

    @property
    def status(self) -> ServingStatus:
        return self.reloader.status

    def write(self, text: str) -> None:
        path = self.home.line / "line.toml"
        path.unlink()
        path.write_text(text)

    def verdict(self, tone: int) -> str:
        with self.line.lease() as lease:
            answer = self.line.ask(lease, np.asarray(grey(tone))[None, None], timeout=20).answer
            assert answer is not None
            return lease.policy.by_confidence(answer.probabilities)[0].outcome


@pytest.fixture
def followed(home: LineHome) -> Iterator[Followed]:
    made = Followed(home)
    yield made
    made.line.close()


def damage(home: LineHome, number: int) -> None:
    file = head_of(home, number)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


def head_of(home: LineHome, number: int) -> Path:
    return home.store.get(deployment(home, number).engines["head"]).file


def deployment(home: LineHome, number: int) -> Deployment:
    return next(each for each in home.deployments.list() if each.number == number)


def test_a_damaged_engine_at_the_start_lets_the_deployment_before_it_answer(
    home: LineHome, followed: Followed
) -> None:
    activate(home, 2)
    whole = head_of(home, 2).read_bytes()
    damage(home, 2)
    assert followed.reloader.look() and followed.models == [1]
    assert followed.status.running == deployment(home, 1) and followed.verdict(128) == "pass"
    assert str(followed.status).startswith("answers: version 1; cannot use version 2: ")
    assert followed.standings == [followed.status]

    head_of(home, 2).write_bytes(whole)
    followed.reloader._again_at = 0.0
    assert followed.reloader.look() and followed.models == [1, 2]
    assert str(followed.status) == "answers: version 2"


def test_the_line_goes_back_through_the_history_to_the_newest_that_opens(
    home: LineHome, followed: Followed
) -> None:
    for number in (2, 3):
        activate(home, number)
        damage(home, number)
    assert followed.reloader.look() and followed.models == [1]
    assert str(followed.status).startswith("answers: version 1; cannot use version 3: ")


def test_nothing_before_a_damaged_engine_leaves_the_line_without_a_version(
    home: LineHome, followed: Followed
) -> None:
    damage(home, 1)
    assert not followed.reloader.look() and followed.line.current is None
    assert str(followed.status).startswith("answers: no version; cannot use version 1: ")


def test_a_version_that_does_not_open_is_named_and_going_back_ends_that(
    home: LineHome, followed: Followed
) -> None:
    followed.reloader.look()
    damage(home, 2)
    activate(home, 2)
    assert not followed.reloader.look()
    assert followed.status.as_dict()["number"] == 1
    assert "cannot use version 2" in followed.status.as_dict()["problem"]
    home.deployments.rollback(who="a test", why="damaged")
    assert not followed.reloader.look()  # what answers is what is wanted: nothing is opened again
    assert followed.status.trouble is None and followed.models == [1]


def test_a_class_that_the_version_does_not_know_is_named_and_nothing_passes_as_it(
    followed: Followed,
) -> None:
    followed.reloader.settings = LineSettings.model_validate(
        {"verdicts": {"good_classes": ["sound", "flawless"], "sure_of": {"glossy": 0.9}}}
    )
    assert followed.reloader.look() and followed.verdict(128) == "pass"
    assert followed.status.unknown == ("flawless", "glossy")
    assert followed.status.trouble is not None and "flawless" in followed.status.trouble


def fail(followed: Followed, times: int) -> None:
    followed.fails = True
    for _ in range(times):
        with pytest.raises(EngineError, match="illegal"):
            followed.verdict(60)


def test_an_engine_that_fails_again_and_again_is_opened_anew_once_and_then_given_up(
    followed: Followed,
) -> None:
    followed.reloader.look()
    fail(followed, MOST_FAILURES - 1)
    followed.reloader.look()
    assert len(followed.opened) == 1
    fail(followed, 1)
    followed.reloader.look()
    assert len(followed.opened) == 2 and not followed.broken
    fail(followed, MOST_FAILURES)
    followed.reloader.look()
    assert len(followed.opened) == 2 and followed.broken == [True]
    with pytest.raises(EngineError, match="no answers any more"):
        followed.status.check()
    assert "version 1 cannot answer" in str(followed.status)


@pytest.mark.parametrize("unreadable", ["current.json", "line.toml"])
@pytest.mark.parametrize("trouble", [OSError(errno.EIO, "Input/output error"), RuntimeError("a defect")])
def test_a_disk_that_gives_no_answer_is_named_once_and_the_next_version_is_taken_up(
    home: LineHome,
    followed: Followed,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    unreadable: str,
    trouble: Exception,
) -> None:
    looks, stat = threading.Semaphore(0), Path.stat

    def failing(path: Path, **options: Any) -> os.stat_result:
        if path.name == unreadable:
            looks.release()
            raise trouble
        return stat(path, **options)

    monkeypatch.setattr(following, "LOOK_EVERY", 0.001)
    followed.reloader.look()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", failing)
        followed.reloader.start()
        for _ in range(10):
            assert looks.acquire(timeout=60)
        assert "cannot see what is to run" in str(followed.status) and followed.verdict(128) == "pass"
        assert len(caplog.records) == 1
    activate(home, 2)
    while followed.status.problem is not None or followed.models != [1, 2]:
        assert followed.reloader._thread is not None and followed.reloader._thread.is_alive()
    followed.reloader.stop()
    assert followed.status.trouble is None


def test_an_engine_that_answered_in_between_may_be_opened_anew_again(followed: Followed) -> None:
    followed.reloader.look()
    for opened in (2, 3):
        fail(followed, MOST_FAILURES)
        followed.reloader.look()
        assert len(followed.opened) == opened
        followed.fails = False
        assert followed.verdict(60) == "reject"
    assert not followed.broken


def test_a_line_whose_engine_fails_for_good_ends_with_a_failure(
    home: LineHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: LineModel, pixels: np.ndarray) -> LineAnswer:
        if pixels[0, 0, 0, 0] != 128:
            raise EngineError("an illegal memory access was encountered")
        return LineAnswer(np.zeros((1, 3)), np.full((1, 3), 1 / 3), np.zeros((1, 4)))

    def ask() -> None:
        path = home.line / "serve.json"
        while not path.exists():
            time.sleep(0.02)
        with grpc.insecure_channel(json.loads(path.read_text())["address"]) as channel:
            call = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=message("ModelInferRequest").SerializeToString,
                response_deserializer=message("ModelInferResponse").FromString,
            )
            code = grpc.StatusCode.INTERNAL
            while code is grpc.StatusCode.INTERNAL:
                with pytest.raises(grpc.RpcError) as caught:
                    call(infer_request([png(grey(60))]), timeout=20)
                code = caught.value.code()

    monkeypatch.setattr(LineModel, "answer", broken)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        with pytest.raises(EngineError, match="no answers any more") as caught:
            serve(home, Listening(address="127.0.0.1:0", http=None), version="test")
        asking.result()
    assert caught.value.exit_code == 80


def test_changed_settings_are_no_other_model(followed: Followed) -> None:
    followed.reloader.look()
    followed.write('[verdicts]\ngood_classes = ["sound"]\nsure = 0.9999\n')
    assert not followed.reloader.look()
    assert followed.models == [1] and len(followed.settings) == 1


def test_a_mistake_in_the_settings_is_part_of_the_standing_until_it_is_mended(followed: Followed) -> None:
    followed.reloader.look()
    followed.write('[verdicts]\ngood_classes = ["sond"]\n')
    followed.reloader.look()
    assert followed.status.trouble is not None and "did you mean sound" in followed.status.trouble
    assert followed.verdict(128) == "pass"
    followed.write('[verdicts]\ngood_classes = ["sound"]\n')
    followed.reloader.look()
    assert followed.status.trouble is None
