from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedspect.account import NO_HOME, complete_environment, expanded
from fedspect.errors import SettingsError


def test_where_there_is_no_home_a_path_below_it_is_refused_with_the_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("~nobody-of-this-name").expanduser())
    monkeypatch.setenv("HOME", "/before")
    complete_environment()
    assert os.environ["HOME"] == NO_HOME
    with pytest.raises(SettingsError, match=r"no home folder.*set HOME"):
        expanded(Path("~/pictures"))
    with pytest.raises(SettingsError, match="no such user"):
        expanded(Path("~nobody-of-this-name/pictures"))
    assert expanded(Path("/data")) == Path("/data") and expanded(Path("data")) == Path("data")


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", unknown)
    monkeypatch.setenv("USER", "")
    complete_environment()
    assert os.environ["USER"] == f"user-{os.getuid()}"


@pytest.mark.parametrize("words", [["fedclient.cli", "status"], ["fedserver.cli", "status", "-w", "."]])
def test_commands_run_as_a_user_whom_the_system_does_not_know(words: list[str], tmp_path: Path) -> None:
    """In a user namespace with a number that has no name, without ``HOME``."""
    bare = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    stranger = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    if shutil.which("unshare") is None or subprocess.run([*stranger, "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    command = [*stranger, sys.executable, "-m", *words]
    done = subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (10, 61) and "Traceback" not in done.stderr and "to mend it" in done.stderr
