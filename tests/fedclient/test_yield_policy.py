from __future__ import annotations

import calendar
import time
from pathlib import Path
from typing import List

import pytest

from fedclient.device_use import LOAD_OVER, Device
from fedclient.yield_policy import MEBI, Blocker, YieldPolicy
from fedspect.errors import YieldedError

NOON = float(calendar.timegm((2026, 11, 22, 12, 0, 0)))


class Scripted(Device):
    """A device whose figures a test says."""

    def __init__(self) -> None:
        self.free, self.taken, self.others = 4096 * MEBI, 500 * MEBI, 0.0

    def memory_free(self) -> int:
        return self.free

    def memory_taken(self) -> int:
        return self.taken

    def load(self) -> float:
        return self.others


class Plant:
    """A plant's home with a clock that moves when somebody sleeps."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        self.now = NOON
        self.device = Scripted()
        (folder / "plant.toml").write_text(settings)
        self.yield_policy = YieldPolicy(
            folder, device=self.device, clock=lambda: self.now, sleep=self.sleep, local=time.gmtime
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_nothing_speaks_against_training_on_a_quiet_device(tmp_path: Path) -> None:
    Plant(tmp_path).yield_policy.between_batches()


def test_a_pause_survives_a_restart_and_ends_with_resume(tmp_path: Path) -> None:
    Plant(tmp_path).yield_policy.mark.put(since=NOON)
    again = Plant(tmp_path)
    blocker = again.yield_policy.schedule_blocker()
    assert blocker is not None and blocker.kind == "paused" and "engineer" in blocker.reason
    assert again.yield_policy.mark.remove() is True
    assert again.yield_policy.schedule_blocker() is None
    assert again.yield_policy.mark.remove() is False


def test_a_pause_for_a_time_ends_by_itself(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.yield_policy.mark.put(since=NOON, until=NOON + 3600)
    blocker = plant.yield_policy.schedule_blocker()
    assert blocker is not None and blocker.until == NOON + 3600
    plant.now += 3600
    assert plant.yield_policy.schedule_blocker() is None


def test_a_damaged_mark_is_still_a_pause(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.yield_policy.mark.path.write_text("[]")
    blocker = plant.yield_policy.schedule_blocker()
    assert blocker is not None and blocker.kind == "paused"


def test_outside_its_hours_a_plant_says_when_it_trains_again(tmp_path: Path) -> None:
    plant = Plant(tmp_path, '[training]\nhours = ["22:00-06:00"]\n')
    blocker = plant.yield_policy.schedule_blocker()
    assert blocker is not None and blocker.kind == "hours" and "22:00" in blocker.reason
    assert blocker.until == NOON + 10 * 3600
    plant.now += 10 * 3600
    assert plant.yield_policy.schedule_blocker() is None


def test_a_round_that_has_begun_waits_and_goes_on_when_the_line_is_done(tmp_path: Path) -> None:
    plant = Plant(tmp_path, "[training]\nload_limit = 50\n")
    plant.device.others = 0.9
    heard: List[Blocker] = []

    def while_waiting(blocker: Blocker) -> None:
        heard.append(blocker)
        if len(heard) == 10:
            plant.device.others = 0.1

    plant.yield_policy.between_batches(while_waiting)
    assert len(heard) == 10 and "90 %" in heard[0].reason and "50 %" in heard[0].reason
    assert plant.now == pytest.approx(NOON + 5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("[training]\nmemory_free = 8192\npatience = 20\n", "4096 MiB of memory are free, 8192"),
        ("[training]\nload_limit = 30\npatience = 20\n", "others use 80 %"),
    ],
)
def test_a_round_is_given_back_when_patience_ends(tmp_path: Path, settings: str, words: str) -> None:
    plant = Plant(tmp_path, settings)
    plant.device.others = 0.8
    with pytest.raises(YieldedError, match=words):
        plant.yield_policy.between_batches()
    assert plant.now == pytest.approx(NOON + 20, abs=1)


def test_a_paused_round_waits_for_a_quick_resume(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.yield_policy.mark.put(since=NOON)

    def while_waiting(blocker: Blocker) -> None:
        if plant.now > NOON + 10:
            plant.yield_policy.mark.remove()

    plant.yield_policy.between_batches(while_waiting)
    assert plant.now < NOON + 12


def test_a_round_is_given_back_at_once_where_waiting_is_known_to_be_too_long(tmp_path: Path) -> None:
    for settings in ('[training]\nhours = ["13:30-14:00"]\n', "[training]\nmemory_limit = 400\n"):
        plant = Plant(tmp_path, settings)
        with pytest.raises(YieldedError):
            plant.yield_policy.between_batches()
        assert plant.now == NOON
    plant = Plant(tmp_path, '[training]\nhours = ["12:01-14:00"]\n')
    plant.yield_policy.between_batches()
    assert plant.now == pytest.approx(NOON + 60, abs=1)


def test_the_load_is_that_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    moment, busy = device._before
    monkeypatch.setattr("psutil.cpu_count", lambda: 4)
    monkeypatch.setattr(device, "_times", lambda: (moment + LOAD_OVER, busy + 2 * LOAD_OVER))
    assert device.load() == pytest.approx(0.5)
    monkeypatch.setattr(device, "_times", lambda: (moment + LOAD_OVER + 0.1, busy + 50))
    assert device.load() == pytest.approx(0.5), "too short a time tells nothing"


def test_a_real_device_has_figures() -> None:
    device = Device()
    assert 1 * MEBI < device.memory_taken() < device.memory_free() * 1000
    assert 0.0 <= device.load() <= 1.0
