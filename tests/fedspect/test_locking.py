from __future__ import annotations

import fcntl
import os
import signal
import threading
from pathlib import Path
from typing import Callable, List, Tuple

import pytest

from fedspect import locking
from fedspect.errors import AlreadyRunningError, FederationError
from fedspect.locking import Occupied, exclusive


def test_whoever_comes_second_is_told_who_is_there(tmp_path: Path) -> None:
    with Occupied(tmp_path / "lock", "the oven"), pytest.raises(AlreadyRunningError) as caught:
        Occupied(tmp_path / "lock", "the oven").acquire()
    assert caught.value.what == "the oven is running already"
    assert f"process {os.getpid()} on " in str(caught.value.seen)


def test_a_file_left_by_a_dead_process_locks_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("pid = 1\nhost = elsewhere\nsince = 1\n")
    lock = Occupied(tmp_path / "lock", "the oven")
    assert lock.holder() is None
    with lock:
        assert lock.holder() is not None
    assert lock.holder() is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"pid = 7", b"no equals sign\n= = =\n"])
def test_asking_for_the_holder_never_disturbs_taking_the_lock(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            Occupied(tmp_path / "lock", "the oven").holder()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            with Occupied(tmp_path / "lock", "the oven"):
                pass
    finally:
        stop.set()
        thread.join()


class Process:
    """Another process that holds the lock, as far as the kernel and its file tell; what it is sent is kept."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.signals: List[Tuple[int, int]] = []
        self.pauses: List[Callable[[], None]] = []
        self._file = path.open("wb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        monkeypatch.setattr(os, "kill", self._signalled)
        monkeypatch.setattr(locking.time, "sleep", lambda seconds: self.pauses.pop(0)())

    def write(self, content: bytes) -> None:
        """Say who it is."""
        self._file.truncate(0)
        os.pwrite(self._file.fileno(), content, 0)

    def let_go(self) -> None:
        """Give the lock back."""
        self._file.close()

    def _signalled(self, pid: int, number: int) -> None:
        self.signals.append((pid, number))


@pytest.mark.parametrize("content", [b"", b"pid = 0\n", b"pid = -1\n", b"pid = \nsince = soon\n", b"\xff"])
def test_a_holder_that_has_not_said_who_it_is_has_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    Process(tmp_path / "lock", monkeypatch).write(content)
    lock = Occupied(tmp_path / "lock", "the oven")
    assert lock.holder() == {}
    with pytest.raises(AlreadyRunningError, match="just starting or ending"):
        lock.check()


def test_a_process_that_is_just_starting_is_ended_once_it_has_said_who_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(tmp_path / "lock", monkeypatch)
    process.pauses = [lambda: None, lambda: process.write(b"pid = 4711\n"), lambda: None, process.let_go]
    assert Occupied(tmp_path / "lock", "the oven").end(within=60.0)
    assert process.signals == [(4711, signal.SIGTERM)]
    assert not Occupied(tmp_path / "lock", "the oven").end(within=60.0)


def test_a_process_that_ended_by_itself_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(tmp_path / "lock", monkeypatch)
    process.write(b"pid = 4711\n")

    def gone(pid: int, number: int) -> None:
        process.let_go()
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", gone)
    process.pauses = [lambda: None]
    assert Occupied(tmp_path / "lock", "the oven").end(within=60.0)


@pytest.mark.parametrize(("content", "remedy"), [(b"pid = 4711\n", "kill -9 4711"), (b"", "try again")])
def test_a_process_that_does_not_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, remedy: str
) -> None:
    Process(tmp_path / "lock", monkeypatch).write(content)
    with pytest.raises(FederationError, match="the oven does not end") as caught:
        Occupied(tmp_path / "lock", "the oven").end(within=-1.0)
    assert caught.value.remedy == remedy


def test_changes_under_the_lock_follow_one_another(tmp_path: Path) -> None:
    inside: List[int] = []
    overlaps: List[int] = []

    def change() -> None:
        for _ in range(50):
            with exclusive(tmp_path / "lock"):
                inside.append(1)
                if len(inside) > 1:
                    overlaps.append(1)
                inside.pop()

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not overlaps
