"""A TOML file and the command line become settings; a mistake is named with the nearest right key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Dict, List, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from fedspect.errors import SettingsError
from fedspect.settings import Settings, assigned, dotted_keys, load_settings
from fedspect.toml_writer import commented_toml
from fedspect.training.settings import TrainingSettings


class Rounds(Settings):
    """How rounds go."""

    rounds: int = Field(10, ge=1, le=1000)
    """Rounds of the federation."""

    strategy: Literal["fedavg", "krum"] = "fedavg"
    """How changes become one."""

    options: Dict[str, float] = Field(default_factory=dict)
    """Options of the strategy."""


class Source(Settings):
    """Where pictures are."""

    folder: Optional[Path] = None
    """The folder of pictures."""

    more: List[Path] = Field(default_factory=list)
    """More folders."""


class Whole(Settings):
    """Everything."""

    seed: int = 1
    """Where chance starts."""

    name: str = "a"
    """A name."""

    share: float = Field(0.2, gt=0, lt=1)
    """A share."""

    federation: Rounds = Rounds()
    """The rounds."""

    data: Source = Source()
    """The pictures."""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    path = written(tmp_path, "seed = 3\n[federation]\nrounds = 4\nstrategy = 'krum'\n")
    settings = load_settings(path, Whole, {"federation.rounds": 5, "name": None})
    assert (settings.seed, settings.federation.rounds, settings.federation.strategy) == (3, 5, "krum")
    assert settings.name == "a"


@pytest.mark.parametrize(
    ("text", "key", "suggestion"),
    [
        ("sed = 3", "sed", "did you mean seed?"),
        ("[federation]\nrouns = 3", "federation.rouns", "did you mean federation.rounds?"),
        ("rounds = 3", "rounds", "did you mean federation.rounds?"),
        ("[federatoin]\nrounds = 3", "federatoin", "did you mean federation?"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(tmp_path, text, key, suggestion):
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, text), Whole)
    assert caught.value.seen == key
    assert caught.value.remedy == suggestion
    assert "run.toml" in caught.value.what


def test_a_key_that_resembles_nothing_lists_what_is_known(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, "[federation]\nqqq = 3"), Whole)
    assert caught.value.remedy is None
    assert caught.value.accepted == "options, rounds, strategy"


def test_a_wrong_value_says_the_key_the_value_what_is_accepted_and_where_it_came_from(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, "[federation]\nstrategy = 'fedavgg'"), Whole)
    assert "federation.strategy in run.toml" in caught.value.what
    assert caught.value.seen == "'fedavgg'"
    assert caught.value.accepted == "fedavg | krum"
    with pytest.raises(SettingsError) as caught:
        load_settings(None, Whole, {"federation.rounds": 0})
    assert "federation.rounds on the command line" in caught.value.what
    assert caught.value.accepted == "at least 1, at most 1000"


def test_a_value_of_another_form_is_told_the_forms_in_words_and_not_as_a_pattern():
    with pytest.raises(SettingsError) as caught:
        load_settings(None, TrainingSettings, {"device": "gpu9"})
    assert caught.value.what == "device on the command line: this is none of its forms"
    assert caught.value.seen == "'gpu9'"
    assert '"cuda:1"' in (caught.value.accepted or "")


@pytest.mark.parametrize("text", ["seed = ", "[federation", "seed = 1\nseed = 2", "federation = 3"])
def test_a_file_that_is_not_the_right_toml_is_a_settings_error(tmp_path, text):
    with pytest.raises(SettingsError, match=r"run\.toml"):
        load_settings(written(tmp_path, text), Whole)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        load_settings(tmp_path / "absent.toml", Whole)


def test_bytes_that_are_no_text_are_a_settings_error(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError):
        load_settings(path, Whole)


def test_a_relative_path_in_a_file_is_relative_to_the_file(tmp_path):
    path = written(tmp_path, "[data]\nfolder = '../pictures'\nmore = ['x', '/y']\n")
    settings = load_settings(path, Whole)
    assert settings.data.folder == tmp_path / ".." / "pictures"
    assert settings.data.more == [tmp_path / "x", Path("/y")]
    assert load_settings(None, Whole, {"data.folder": "here"}).data.folder == Path("here")


def test_a_written_file_explains_every_key():
    text = commented_toml(Whole(), heading="Settings of a run")
    assert text.startswith("# Settings of a run\n")
    for key, field in dotted_keys(Whole).items():
        name = key.rsplit(".", 1)[-1]
        assert f"\n{name} =" in text or f"\n# {name} =" in text
        assert (field.description or "").split(".")[0] in text
    assert "Accepted: fedavg | krum." in text
    assert "Accepted: more than 0, less than 1." in text


any_text = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


@given(
    seed=st.integers(-(2**60), 2**60),
    name=any_text,
    share=st.floats(1e-12, 1 - 1e-12),
    options=st.dictionaries(any_text, st.floats(allow_nan=False), max_size=4),
    folder=st.none() | st.just(Path('/with "quotes" and \\ signs')),
)
def test_what_is_written_reads_back_the_same(tmp_path_factory, seed, name, share, options, folder):
    settings = Whole(
        seed=seed, name=name, share=share, federation=Rounds(options=options), data=Source(folder=folder)
    )
    path = tmp_path_factory.mktemp("toml") / "run.toml"
    path.write_bytes(commented_toml(settings).encode("utf-8"))
    assert load_settings(path, Whole) == settings


def test_numbers_that_are_not_finite_read_back_too(tmp_path):
    settings = Whole(federation=Rounds(options={"a": math.inf, "b": -math.inf}))
    assert load_settings(written(tmp_path, commented_toml(settings)), Whole) == settings


def test_assignments_of_the_command_line_are_read_as_toml_values() -> None:
    found = assigned(["a.b=0.1", "c = [1, 2]", "word=plain", "text=a=b"])
    assert found == {"a.b": 0.1, "c": [1, 2], "word": "plain", "text": "a=b"}
    for wrong in ("a", "=3", " = 3"):
        with pytest.raises(SettingsError, match="not understood"):
            assigned([wrong])
