"""Commands in the background: real processes, what is heard of them, and what others can see of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import typer

import fedspect.files
from fedspect.background import detach
from fedspect.errors import FederationError

PROGRAM = """
import pathlib, sys, time
print("said now")
sys.stdout.flush()
folder, does = pathlib.Path(sys.argv[1]), sys.argv[2]
if does == "stays":
    (folder / "heard").write_text(sys.stdin.read())
    (folder / "up").touch()
    time.sleep(600)
elif does == "hangs":
    time.sleep(600)
sys.exit(int(does))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "some_program"


def test_what_it_is_told_comes_through_a_pipe_and_stands_on_no_command_line(
    program: str, tmp_path: Path
) -> None:
    pid = detach(
        program,
        [str(tmp_path), "stays"],
        tmp_path / "logs" / "it.log",
        up=lambda pid: (tmp_path / "up").exists(),
        within=60,
        told="a secret",
    )
    try:
        assert (tmp_path / "heard").read_text() == "a secret"
        assert b"secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("code", [10, 0])
def test_one_that_ends_gives_its_exit_code_and_what_it_said_this_time(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    log = tmp_path / "it.log"
    log.write_text("said by an earlier one\n")
    with pytest.raises(typer.Exit) as ended:
        detach(program, [str(tmp_path), str(code)], log, up=lambda pid: False, within=60)
    assert ended.value.exit_code == code
    assert capsys.readouterr().err == "said now\n"
    assert log.read_text() == "said by an earlier one\nsaid now\n"


def test_one_that_does_not_come_up_is_named(program: str, tmp_path: Path) -> None:
    seen: list[int] = []

    def up(pid: int) -> bool:
        seen.append(pid)
        return False

    with pytest.raises(FederationError, match="not up after 2 s"):
        detach(program, [str(tmp_path), "hangs"], tmp_path / "it.log", up=up, within=2.0)
    os.kill(seen[0], signal.SIGKILL)


def test_a_log_that_has_grown_large_is_put_aside_at_the_next_start(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fedspect.files, "LARGEST_LOG", 100)
    log = tmp_path / "it.log"
    log.write_text("x" * 101)
    with pytest.raises(typer.Exit):
        detach(program, [str(tmp_path), "3"], log, up=lambda pid: False, within=60)
    assert log.read_text() == "said now\n"
    assert (tmp_path / "it.old.log").read_text() == "x" * 101
