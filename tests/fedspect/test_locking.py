from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import List

import pytest

from fedspect.errors import AlreadyRunningError
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
