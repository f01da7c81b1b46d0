from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import List

import numpy as np
import pytest

from fedclient.worker.engines.model import LineAnswer
from fedclient.worker.line.decision_policy import DecisionPolicy
from fedclient.worker.line.serving.dynamic_batcher import DynamicBatcher
from fedclient.worker.line.serving.model_leases import BusyError, NotReadyError
from fedclient.worker.line.settings import ServingSettings, VerdictSettings
from fedspect.errors import EngineError
from line_parts import CLASSES, PREPARED, SIDE

JUDGE = DecisionPolicy(VerdictSettings(), CLASSES)


class SlowModel:
    """Answers each picture's own brightness; may be held, and counts what it is asked."""

    def __init__(self, number: int = 1) -> None:
        self.version, self.number, self.classes = f"v{number}", number, CLASSES
        self.preprocessing = PREPARED
        self.free = threading.Event()
        self.free.set()
        self.batches: List[int] = []
        self.closed = False
        self.largest = 1000

    def answer(self, pixels: np.ndarray) -> LineAnswer:
        assert not self.closed
        self.batches.append(len(pixels))
        assert self.free.wait(20)
        if len(pixels) > self.largest:
            raise EngineError("out of memory")
        value = pixels.reshape(len(pixels), -1).mean(axis=1, dtype=np.float32)
        rows = np.stack([value, value * self.number, value], axis=1)
        return LineAnswer(rows, rows, np.zeros((len(pixels), 0), np.float32))

    def close(self) -> None:
        self.closed = True


def settings(**changes: object) -> ServingSettings:
    return ServingSettings.model_validate({"gather_ms": 0, "latency_ms": 60_000, **changes})


def picture(value: int, count: int = 1) -> np.ndarray:
    return np.full((count, 1, SIDE, SIDE), value, dtype=np.uint8)


def ask(line: DynamicBatcher, value: int, count: int = 1) -> LineAnswer:
    with line.lease() as lease:
        answer = line.ask(lease, picture(value, count), timeout=20).answer
        assert answer is not None
        return answer


def wait_until(holds: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_without_a_model_there_is_no_answer() -> None:
    line = DynamicBatcher(settings())
    with pytest.raises(NotReadyError, match="no engine yet"), line.lease():
        pass
    line.close()


def test_what_comes_together_is_answered_together_and_each_gets_its_own() -> None:
    line, model = DynamicBatcher(settings(most_pictures=8)), SlowModel()
    line.replace(model, JUDGE)
    model.free.clear()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(ask, line, 0)
        wait_until(lambda: model.batches == [1])
        others = [pool.submit(ask, line, value) for value in range(1, 9)]
        wait_until(lambda: line.waiting == 8)
        model.free.set()
        assert first.result().logits[0, 0] == 0
        assert [each.result().logits[0, 0] for each in others] == list(range(1, 9))
    assert model.batches == [1, 8] and line.pictures == 9 and line.batches == 2
    line.close()


def test_a_full_queue_refuses_at_once_and_does_not_grow() -> None:
    line, model = DynamicBatcher(settings(waiting_pictures=4, most_pictures=2)), SlowModel()
    line.replace(model, JUDGE)
    model.free.clear()
    with ThreadPoolExecutor(8) as pool:
        running = pool.submit(ask, line, 1)
        wait_until(lambda: model.batches == [1])
        waiting = [pool.submit(ask, line, 2, 2) for _ in range(2)]
        wait_until(lambda: line.waiting == 4)
        with line.lease() as lease, pytest.raises(BusyError, match="too many pictures wait"):
            line.submit(lease, picture(3))
        assert line.waiting == 4
        model.free.set()
        assert running.result() and all(each.result() for each in waiting)
    assert ask(line, 5).logits[0, 0] == 5
    line.close()


def test_a_slow_engine_gets_smaller_batches() -> None:
    line = DynamicBatcher(settings(latency_ms=20, most_pictures=64))

    class Crawling(SlowModel):
        def answer(self, pixels: np.ndarray) -> LineAnswer:
            time.sleep(0.01 * len(pixels))
            return super().answer(pixels)

    model = Crawling()
    line.replace(model, JUDGE)
    ask(line, 1)
    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(lambda value: ask(line, value), range(12)))
    assert max(model.batches) <= 2
    line.close()


def test_a_swap_lets_requests_under_way_finish_with_their_model_and_closes_it_then() -> None:
    line, old, new = DynamicBatcher(settings(most_pictures=1)), SlowModel(1), SlowModel(2)
    line.replace(old, JUDGE)
    old.free.clear()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, line, 3) for _ in range(3)]
        wait_until(lambda: len(old.batches) == 1 and line.waiting == 2)
        line.replace(new, JUDGE)
        assert not old.closed
        later = pool.submit(ask, line, 3)
        wait_until(lambda: line.waiting == 3)
        old.free.set()
        assert [each.result().logits[0, 1] for each in waiting] == [3, 3, 3]
        assert later.result().logits[0, 1] == 6
    wait_until(lambda: old.closed)
    assert not new.closed
    line.close()
    assert new.closed


def test_a_request_that_was_decoded_for_the_old_model_still_goes_to_it() -> None:
    line, old, new = DynamicBatcher(settings()), SlowModel(1), SlowModel(2)
    line.replace(old, JUDGE)
    with line.lease() as lease:
        line.replace(new, JUDGE)
        answer = line.ask(lease, picture(4)).answer
        assert answer is not None and answer.logits[0, 1] == 4 and not old.closed
    assert old.closed
    line.close()


def test_a_batch_that_fails_is_answered_one_by_one() -> None:
    line, model = DynamicBatcher(settings()), SlowModel()
    model.largest = 1
    line.replace(model, JUDGE)
    model.free.clear()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(ask, line, 0)]
        wait_until(lambda: model.batches == [1])
        jobs += [pool.submit(ask, line, value) for value in range(1, 4)]
        wait_until(lambda: line.waiting == 3)
        model.free.set()
        assert sorted(float(each.result().logits[0, 0]) for each in jobs) == [0, 1, 2, 3]
    with line.lease() as lease, pytest.raises(EngineError, match="out of memory"):
        line.ask(lease, picture(1, 2))
    line.close()


def test_a_defect_in_the_model_reaches_the_one_who_asked_and_the_line_goes_on() -> None:
    line, model = DynamicBatcher(settings()), SlowModel()
    line.replace(model, JUDGE)
    with line.lease() as lease, pytest.raises(EngineError, match="the line failed"):
        line.ask(lease, np.zeros((1, 1, 1, 1), np.uint8).astype("datetime64[s]"))
    assert ask(line, 7).logits[0, 0] == 7
    line.close()


def test_closing_answers_what_waits_and_refuses_what_comes() -> None:
    line, model = DynamicBatcher(settings(most_pictures=1)), SlowModel()
    line.replace(model, JUDGE)
    model.free.clear()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(ask, line, 1) for _ in range(3)]
        wait_until(lambda: line.waiting == 2)
        closing = pool.submit(line.close)
        wait_until(lambda: line._closed)
        with pytest.raises(NotReadyError):
            ask(line, 1)
        model.free.set()
        assert all(each.result() for each in jobs)
        closing.result()
    assert model.closed


def test_an_abandoned_request_is_not_computed() -> None:
    line, model = DynamicBatcher(settings()), SlowModel()
    line.replace(model, JUDGE)
    model.free.clear()
    with line.lease() as lease:
        first = line.submit(lease, picture(1))
        wait_until(lambda: model.batches == [1])
        second = line.submit(lease, picture(2))
        line.abandon(second)
        model.free.set()
        assert first.done.wait(20) and second.done.wait(20)
        assert second.answer is None
    assert model.batches == [1]
    line.close()
