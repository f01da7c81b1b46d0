"""Plugins: entry points by name, clashes and broken packages in words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedspect import plugins
from fedspect.errors import SettingsError

GROUP = "fedspect.tested"


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def installed(site: Path, package: str, *lines: str) -> None:
    folder = site / f"{package}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))


def test_an_entry_point_is_found_by_its_name_and_loaded_when_asked_for(site):
    installed(site, "tested-one", "path = pathlib:Path", "broken = no_such_module:thing")
    assert list(plugins.load(GROUP)) == ["path", "broken"]
    assert plugins.resolve(GROUP, "path") is Path


def test_an_unknown_name_says_what_there_is_and_what_was_meant(site):
    installed(site, "tested-one", "halving = pathlib:Path")
    with pytest.raises(SettingsError, match="did you mean halving"):
        plugins.resolve(GROUP, "halfing")


def test_a_package_that_does_not_load_is_an_error_in_words(site):
    (site / "raising_plugin.py").write_text("raise RuntimeError('no licence')\n")
    installed(site, "tested-one", "broken = raising_plugin:thing", "lacking = pathlib:Nothing")
    with pytest.raises(SettingsError, match="raising_plugin:thing: RuntimeError: no licence"):
        plugins.resolve(GROUP, "broken")
    with pytest.raises(SettingsError, match="uninstall"):
        plugins.resolve(GROUP, "lacking")
    assert "raising_plugin" not in sys.modules


def test_two_packages_with_one_name_are_an_error_that_names_both(site):
    installed(site, "tested-one", "halving = pathlib:Path")
    installed(site, "tested-two", "halving = pathlib:PurePath")
    with pytest.raises(SettingsError, match="tested-one and tested-two"):
        plugins.load(GROUP)


def test_the_products_own_come_first_and_nobody_may_take_their_names(site):
    installed(site, "tested-one", "added = pathlib:Path")
    own = {"zero": "pathlib:PurePath"}
    assert list(plugins.load(GROUP, own)) == ["zero", "added"]
    assert plugins.resolve(GROUP, "zero", own).__name__ == "PurePath"
    with pytest.raises(SettingsError, match="fedspect and tested-one"):
        plugins.load(GROUP, {"added": "pathlib:PurePath"})
