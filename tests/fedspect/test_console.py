"""Every error of a command ends in one clear message and its exit code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedspect.console import print_table, progress_bar

PROGRAM = """
import errno, sys
from pathlib import Path
from fedspect import console, errors
from fedspect.console import JsonOption

app = console.make_app("thing", "Does a thing.")

@app.command()
def fail(how: str, json: JsonOption = False) -> None:
    \"\"\"Fail.\"\"\"
    if how == "settings":
        raise errors.SettingsError("alpha is [negative]", seen=-1, accepted="more than 0", remedy="no alpha")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "some/file")
    if how == "defect":
        raise RuntimeError("the unforeseen")
    if how == "pipe":
        for _ in range(100000):
            print("a line of output")
    console.print_table("t", ["a", "b"], [["[x]", 1]])

@app.command()
def other() -> None:
    \"\"\"Another.\"\"\"

console.run_app(app)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    environment.pop("FEDSPECT_TRACEBACK", None)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )


def test_a_users_mistake_ends_in_its_code_with_all_parts_of_the_message_and_no_traceback():
    result = run("fail", "settings")
    assert result.returncode == 10
    for part in ("alpha is [negative]", "-1", "more than 0", "no alpha", "docs/exit-codes/10.md"):
        assert part in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_with_json_the_error_is_json_on_standard_output():
    result = run("fail", "settings", "--json")
    assert result.returncode == 10
    answer = json.loads(result.stdout)
    assert answer["error"] == "SettingsError" and answer["exit_code"] == 10 and answer["seen"] == "-1"


@pytest.mark.parametrize(("how", "code"), [("interrupt", 130), ("disk", 51), ("defect", 1), ("fine", 0)])
def test_other_ends_have_their_codes(how, code):
    assert run("fail", how).returncode == code


def test_a_defect_shows_its_trace_and_says_that_it_is_one():
    result = run("fail", "defect")
    assert "Traceback" in result.stderr and "the unforeseen" in result.stderr and "defect" in result.stderr


def test_an_unknown_option_ends_in_2():
    assert run("fail", "fine", "--nonsense").returncode == 2
    assert run("nonsense").returncode == 2


def test_version_and_help_are_there():
    assert run("--version").stdout.startswith("thing ")
    assert "Does a thing." in run("--help").stdout
    assert "--json" in run("fail", "--help").stdout


def test_text_in_brackets_is_printed_as_it_is():
    assert "[x]" in run("fail", "fine").stdout


def test_a_terminal_without_a_sign_gets_it_escaped() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "latin-1"}
    program = PROGRAM.replace("[x]", "木 ü").replace(
        'if how == "pipe"', 'console.print_json(["木 ü"])\n    if how == "pipe"'
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "fail", "fine"], capture_output=True, env=environment
    )
    document, _, table = done.stdout.decode("latin-1").partition("]")
    assert done.returncode == 0, done.stderr
    assert json.loads(document + "]") == ["木 ü"] and "\\u6728 ü" in table


def test_a_reader_that_leaves_early_is_no_error():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "fail", "pipe"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1)


def test_shell_completion_is_offered():
    assert "--show-completion" in run("--help").stdout


@pytest.mark.parametrize("columns", [80, 200])
def test_names_in_a_table_are_whole_at_any_width(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    engine = "onnxruntime-float32-0123456789ab-0123456789ab"
    print_table("Engines", ("engine", "file", "kept"), [(engine, "x" * 60, "yes"), (engine, "", "")])
    printed = capsys.readouterr().out
    assert printed.count(engine) == 2 and "x" * 60 in printed
    assert ("kept yes" in printed) == (columns == 80)


words = st.text("abcdefghij", min_size=1, max_size=14)
cells = st.lists(words, max_size=4).map(" ".join)
tables = st.integers(1, 6).flatmap(
    lambda count: st.tuples(
        st.lists(words, min_size=count, max_size=count),
        st.lists(st.lists(cells, min_size=count, max_size=count), max_size=4),
    )
)


@given(tables, st.integers(20, 120))
def test_no_word_of_a_table_is_broken_and_no_line_is_wider_than_the_terminal(table, width):
    columns, rows = table
    content = " ".join([*columns, *(cell for row in rows for cell in row)]).split()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()) as target:
        patched.setenv("COLUMNS", str(width))
        print_table("t", columns, rows, caption="a/path/that/is/longer/than/the/table")
    printed = target.getvalue()
    assert "a/path/that/is/longer/than/the/table" in printed
    found = Counter(re.findall("[a-j]+", printed))
    framed = "┃" in printed
    assert all(found[word] >= count for word, count in Counter(content).items() if framed or not columns)
    assert not framed or all(len(line) <= width for line in printed.splitlines()[:-1])
    if not framed:
        assert all(found[word] for row in rows for cell in row for word in cell.split())


def test_a_bar_that_nobody_sees_leaves_no_line(capsys):
    with progress_bar("pictures") as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""
