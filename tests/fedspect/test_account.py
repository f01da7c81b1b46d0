from __future__ import annotations

import os
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
