"""All settings of a simulation are documented, reachable from the command line, and kept by the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedsim.commands.overrides import OPTIONS, Overrides
from fedsim.config import SHIPPED, SimulationSettings
from fedsim.preflight import check_start
from fedspect.errors import BaseModelError, SettingsError
from fedspect.model.base import DEFAULT_FOLDER, default_base
from fedspect.settings import dotted_keys, load_settings
from fedspect.toml_writer import commented_toml


def settings_of(given, config, assignments):
    return Overrides(given, config, assignments or ()).settings()


def test_every_setting_is_documented():
    undocumented = [key for key, field in dotted_keys(SimulationSettings).items() if not field.description]
    assert undocumented == []


def test_every_option_stands_for_a_setting_that_exists():
    assert {key for key, _ in OPTIONS.values()} <= set(dotted_keys(SimulationSettings))


def test_the_printed_defaults_are_the_defaults(tmp_path):
    path = tmp_path / "all.toml"
    path.write_text(commented_toml(SimulationSettings()), encoding="utf-8")
    assert load_settings(path, SimulationSettings) == SimulationSettings()


def test_the_command_line_wins_over_the_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("seed = 5\n[plants]\ncount = 9\npartition = 'iid'\n", encoding="utf-8")
    settings = settings_of({"plants": 3, "alpha": None}, path, ["training.learning_rate=0.01"])
    assert (settings.seed, settings.plants.count, settings.plants.partition) == (5, 3, "iid")
    assert settings.training.learning_rate == 0.01


def test_paths_are_kept_absolute_so_that_the_run_can_go_on_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = settings_of({"data": Path("pictures"), "base": Path("base")}, None, None)
    assert settings.data.folder == tmp_path / "pictures"
    assert settings.model.base == tmp_path / "base"


def test_paths_are_kept_without_detours(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert settings_of({"data": Path("../pictures")}, None, None).data.folder == tmp_path / "pictures"


@pytest.mark.parametrize(
    ("setting", "meant"), [("plants=3", "plants.count"), ("data='pictures'", "data.folder")]
)
def test_a_value_in_place_of_a_section_is_told_where_it_was_meant(setting, meant):
    with pytest.raises(SettingsError, match="is a section") as refused:
        settings_of({}, None, [setting])
    assert refused.value.remedy == f"did you mean {meant}?"


def test_set_takes_numbers_words_lists_and_options_of_a_strategy():
    given = Overrides(
        {}, assignments=["a=1", "b=word", "c=['x']", "federation.strategy_options.proximal_mu=0.1", "d=a=b"]
    )
    assert given.overrides() == {
        "a": 1,
        "b": "word",
        "c": ["x"],
        "federation.strategy_options.proximal_mu": 0.1,
        "d": "a=b",
    }
    settings = settings_of({"strategy": "fedprox"}, None, ["federation.strategy_options.proximal_mu=0.1"])
    assert settings.federation.strategy_options == {"proximal_mu": 0.1}


@pytest.mark.parametrize(
    ("given", "assignments"),
    [
        ({"rounds": -1}, []),
        ({"rounds": 0}, ["federation.start=fresh"]),
        ({"alpha": -1.0}, []),
        ({"strategy": "fedmagic"}, []),
        ({"base": Path("x"), "scratch": True}, []),
        ({}, ["federation.strategy_options.proximal_mu=0.1"]),  # fedavg has no such option
        ({}, ["no equals sign"]),
        ({}, ["federation.rouns=3"]),
        ({"size": 32}, []),
        ({}, ["federation.early_stop=3", "data.evaluation_share=0"]),
        ({}, ["training.early_stopping=3"]),
    ],
)
def test_what_is_not_accepted_is_a_settings_error(given, assignments):
    with pytest.raises(SettingsError):
        settings_of(given, None, assignments)


@pytest.mark.parametrize(
    ("setting", "instead"),
    [("training.epochs=5", "--local-epochs"), ("training.proximal_mu=0.1", "--strategy fedprox")],
)
def test_what_another_option_decides_is_refused_and_that_option_is_named(setting, instead):
    with pytest.raises(SettingsError) as refused:
        settings_of({}, None, [setting])
    assert instead in str(refused.value.remedy)


def test_another_architecture_than_the_shipped_base_starts_from_scratch_and_says_so(capsys):
    assert default_base().card.architecture == SHIPPED
    assert settings_of({"model": "plain-cnn"}, None, None).model.scratch
    assert "plain-cnn" in capsys.readouterr().err
    assert settings_of({"model": "plain-cnn", "scratch": True}, None, None).model.scratch
    for given in ({"model": SHIPPED}, {}, {"model": "plain-cnn", "base": Path("base")}):
        assert not settings_of(given, None, None).model.scratch
    assert capsys.readouterr().err == ""


def test_a_base_that_is_named_must_be_of_the_architecture_that_is_asked_for():
    with pytest.raises(BaseModelError, match="another architecture"):
        check_start(settings_of({"model": "plain-cnn", "base": DEFAULT_FOLDER}, None, None))
