"""Files are written whole or not at all, whatever the disk does."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from fedspect import files
from fedspect.errors import DamagedFileError, DiskFullError, StorageError


def test_a_file_is_replaced_and_nothing_else_is_left_behind(tmp_path):
    path = tmp_path / "deep" / "down" / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_content_and_no_temporary_file(tmp_path):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as file:
        file.write(b"half of the ne")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_is_never_readable_by_others(tmp_path):
    path = tmp_path / "key"
    files.write_bytes(path, b"secret", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_write_beyond_the_limit_of_the_disk_keeps_the_old_content(tmp_path):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError) as caught:
            files.write_bytes(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.exit_code == StorageError.exit_code
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_a_storage_error_and_no_traceback(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        files.write_text(tmp_path / "file" / "below", "y")


def test_a_process_killed_while_it_writes_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"0" * 200_000)
    program = (
        "import sys; from pathlib import Path; from fedspect import files\n"
        "path = Path(sys.argv[1]); print('ready', flush=True); n = 0\n"
        "while True:\n    n = (n + 1) % 10\n    files.write_bytes(path, str(n).encode() * 200_000)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(20):
            content = path.read_bytes()
            assert len(content) == 200_000 and len(set(content)) == 1
        process.kill()
        process.wait()
        process.stdout.close()
        content = path.read_bytes()
        assert len(content) == 200_000 and len(set(content)) == 1


def test_json_is_read_back_and_damage_is_named(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"b": [1, 2], "a": "ü"})
    assert files.read_json(path) == {"a": "ü", "b": [1, 2]}
    path.write_text('{"a": ')
    with pytest.raises(DamagedFileError, match=r"a\.json"):
        files.read_json(path)
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "absent.json")


@pytest.mark.parametrize("name", [os.fsdecode(b"\xe4.png"), "ä\x85\u2028\u2029\x0b\x1c\U0001f600.png"])
def test_rows_and_documents_give_back_any_name(tmp_path: Path, name: str) -> None:
    files.append_bounded(tmp_path / "rows.jsonl", {"file": name})
    files.append_bounded(tmp_path / "rows.jsonl", {"file": "ü.png"})
    assert files.read_json_lines(tmp_path / "rows.jsonl") == [{"file": name}, {"file": "ü.png"}]
    assert "ü.png" in (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    files.write_json(tmp_path / "a.json", [name])
    assert files.read_json(tmp_path / "a.json") == [name]


def test_a_torn_last_line_is_reported_and_the_next_line_starts_afresh(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    files.append_line(path, '{"n": 1}')
    with path.open("ab") as file:
        file.write(b'{"n": 2, "cut')
    files.append_line(path, '{"n": 3}')
    damaged: list = []
    assert files.read_json_lines(path, on_damage=damaged.append) == [{"n": 1}, {"n": 3}]
    assert damaged == ['{"n": 2, "cut']
    assert files.read_json_lines(tmp_path / "absent.jsonl") == []


def test_a_folder_appears_with_all_its_files_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, contents = tmp_path / "0001", {"a": b"1", "b": b"22"}
    for failing in range(4):
        calls: List[int] = []

        def full(descriptor: int, calls: List[int] = calls, failing: int = failing) -> None:
            calls.append(descriptor)
            if len(calls) > failing:
                raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(DiskFullError):
                files.write_folder(place, contents)
        assert not place.exists() or failing == 3  # only the last flush comes after the rename
    files.remove_folder(place)
    files.write_folder(place, contents)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == contents
    assert [path.name for path in tmp_path.iterdir()] == ["0001"]


def test_a_folder_that_exists_is_not_written_into(tmp_path: Path) -> None:
    files.write_folder(tmp_path / "0001", {"a": b"1"})
    with pytest.raises(StorageError):
        files.write_folder(tmp_path / "0001", {"b": b"2"})
    assert [path.name for path in (tmp_path / "0001").iterdir()] == ["a"]
    files.remove_folder(tmp_path / "never")


def test_a_log_that_another_process_keeps_open_is_emptied_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_LOG", 10)
    log = tmp_path / "it.log"
    with log.open("ab", buffering=0) as kept_open:
        kept_open.write(b"ten signs.")
        assert not files.turn_over(log, open_elsewhere=True)
        kept_open.write(b"and more")
        assert files.turn_over(log, open_elsewhere=True)
        kept_open.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "it.old.log").read_bytes() == b"ten signs.and more"
