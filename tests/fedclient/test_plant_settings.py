from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedclient.plant_settings import PlantSettings, SettingsFile
from fedspect.errors import SettingsError


def test_the_file_that_is_made_says_every_setting_and_means_the_defaults(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path)
    assert file.read() == PlantSettings()
    file.prepare()
    text = file.path.read_text()
    for word in (
        "[training]",
        "hours = []",
        "memory_free = ",
        "patience = ",
        "[device]",
        "[versions]",
        "midnight",
    ):
        assert word in text
    assert file.read() == PlantSettings()


def test_an_option_changes_its_value_and_keeps_comments_and_other_values(tmp_path: Path) -> None:
    pytest.importorskip("tomlkit", reason="the worker's interpreter needs no tomlkit")
    file = SettingsFile(tmp_path)
    file.prepare()
    file.path.write_text(file.path.read_text().replace("nice = 10", "nice = 3  # Anna, in May"))
    file.change({"training.hours": ["22:00-06:00"], "training.load_limit": 60})
    settings = file.read()
    assert settings.training.hours == ["22:00-06:00"] and settings.training.load_limit == 60
    assert settings.device.nice == 3
    assert "# Anna, in May" in file.path.read_text()


def test_a_value_that_is_not_accepted_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("tomlkit", reason="the worker's interpreter needs no tomlkit")
    file = SettingsFile(tmp_path)
    file.prepare()
    before = file.path.read_text()
    with pytest.raises(SettingsError, match="22-6"):
        file.change({"training.hours": ["22-6"]})
    assert file.path.read_text() == before


def test_an_unknown_key_suggests_the_nearest(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path)
    file.path.write_text("[training]\nhour = ['22:00-06:00']\n")
    with pytest.raises(SettingsError) as caught:
        file.read()
    assert caught.value.remedy == "did you mean training.hours?"


def test_a_running_plant_reads_changes_and_outlives_a_broken_file(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path)
    assert file.current().training.load_limit == 0
    file.path.write_text("[training]\nload_limit = 40\n")
    assert file.current().training.load_limit == 40 and file.problem is None
    file.path.write_text("[training]\nload_limit = lots and lots\n")
    assert file.current().training.load_limit == 40
    assert file.problem is not None and "TOML" in file.problem
    file.path.write_text("[training]\nload_limit = 41\n")
    os.utime(str(file.path), ns=(1, 1))
    assert file.current().training.load_limit == 41 and file.problem is None
