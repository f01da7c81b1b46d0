from __future__ import annotations

from pathlib import Path

import pytest

from fedserver.aggregation.registry import strategy_names
from fedserver.settings import FineTuningSettings, ServerSettings
from fedspect.errors import ClassError, SettingsError
from fedspect.settings import load_settings, settings_from
from fedspect.toml_writer import commented_toml
from fedspect.training.settings import TrainingSettings


def test_what_headquarters_prescribes_means_the_same_to_a_worker() -> None:
    """Headquarters has no torch, so it says the fields of ``TrainingSettings`` again."""
    for name, field in FineTuningSettings.model_fields.items():
        other = TrainingSettings.model_fields[name]
        assert field.annotation == other.annotation, name
        assert field.default == other.default, name
        assert field.metadata == other.metadata, name
    assert TrainingSettings.model_validate(FineTuningSettings().model_dump()) == TrainingSettings()


def test_every_strategy_of_the_round_loop_can_be_chosen(tmp_path: Path) -> None:
    for name in strategy_names():
        path = tmp_path / "fedserver.toml"
        path.write_text(f'[run]\nstrategy = "{name}"\n')
        assert load_settings(path, ServerSettings).run.strategy == name


def test_the_file_that_init_writes_reads_back_as_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "fedserver.toml"
    path.write_text(commented_toml(ServerSettings()))
    assert load_settings(path, ServerSettings) == ServerSettings()


def test_a_run_without_classes_says_where_to_put_them() -> None:
    with pytest.raises(ClassError) as caught:
        ServerSettings().ready_classes()
    assert "fedserver.toml" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    "text",
    [
        '[federation]\nclasses = ["pit"]',
        '[federation]\nclasses = ["pit", "Pit"]',
        '[federation]\nclasses = ["pit", "scratch"]\naliases = { hole = "holes" }',
        '[federation]\nclasses = ["roll-mark", "roll_mark"]',
        '[federation]\nclasses = ["pit", "-"]',
        '[federation]\nclasses = ["pit", "scratch"]\naliases = { hole = "pit", Hole = "scratch" }',
        '[federation]\nclasses = ["pit", "scratch"]\naliases = { PIT = "scratch" }',
        "[network]\nhosts = []",
        '[network]\nhosts = ["https://hq"]',
        "[network]\nfleet_port = 70000",
        '[run]\nstrategy = "fedmagic"',
        "[rounds]\nquorum = 0",
        "[surprise]\nx = 1",
    ],
)
def test_a_value_that_is_not_accepted_is_answered_in_one_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fedserver.toml"
    path.write_text(text + "\n")
    with pytest.raises(SettingsError):
        load_settings(path, ServerSettings)


def test_classes_that_plants_would_refuse_are_answered_with_what_to_do() -> None:
    given = {"federation": {"classes": ["roll-mark", "roll_mark"]}}
    with pytest.raises(SettingsError) as caught:
        settings_from(given, ServerSettings, origin="fedserver.toml")
    said = str(caught.value)
    assert (
        "fedserver.toml" in said and "roll-mark, roll_mark" in said and "to mend it: keep one of them" in said
    )
