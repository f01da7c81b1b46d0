"""From folders of pictures to a base model's folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedspect.errors import ClassError, ModelError, NoPicturesError
from fedspect.model.base import load_base
from fedspect.training.base_recipe import BaseRecipe, gather, make_base, named_sources
from fedspect.training.pretraining import PretrainingSettings


def pictures(folder: Path, names: tuple[str, ...] = ("plain", "striped"), seed: int = 1) -> Path:
    random = np.random.default_rng(seed)
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            image = random.normal(128, 20, (48, 48)) + 40 * place * (np.arange(48) % 6 < 3)
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def plan(**sources: Path) -> BaseRecipe:
    return BaseRecipe(
        sources=sources,
        architecture="plain-cnn",
        size=72,
        training_size=64,
        channels=1,
        settings=PretrainingSettings(epochs=2, batch_size=8, device="cpu"),
        seed=1,
    )


def test_classes_are_named_after_their_sources(tmp_path: Path) -> None:
    found = gather({"steel": pictures(tmp_path / "a"), "brass": pictures(tmp_path / "b", seed=2)})
    assert {each.label for each in found} == {
        "steel/plain",
        "steel/striped",
        "brass/plain",
        "brass/striped",
    }
    assert len({each.group.partition("/")[0] for each in found}) == 2


def test_a_base_model_is_made_and_the_same_seed_makes_it_again(tmp_path: Path) -> None:
    source = pictures(tmp_path / "steel")
    made = make_base(plan(steel=source), tmp_path / "one", made_by="a test")
    again = make_base(plan(steel=source), tmp_path / "two", made_by="a test", described=["steel, twice"])
    assert load_base(tmp_path / "one").content_hash == made.base.content_hash == again.base.content_hash
    assert made.base.card.provenance["sources"] == ["steel"]
    assert again.base.card.provenance["sources"] == ["steel, twice"]
    assert made.base.card.input_size == 72
    assert made.pictures + made.base.card.provenance["held_out_pictures"] == 24


def test_two_sources_of_one_name_and_no_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClassError, match="same name"):
        named_sources([tmp_path / "a" / "steel", tmp_path / "b" / "steel"])
    with pytest.raises(NoPicturesError):
        gather({})


def test_a_folder_is_a_source_under_its_whole_name_and_a_list_under_the_name_of_its_file(
    tmp_path: Path,
) -> None:
    folders = [tmp_path / "set.v1", tmp_path / "set.v2"]
    for folder in folders:
        folder.mkdir()
    assert named_sources([*folders, tmp_path / "list.csv"]) == {
        "set.v1": folders[0],
        "set.v2": folders[1],
        "list": tmp_path / "list.csv",
    }


def test_a_misspelt_model_is_told_before_a_picture_is_looked_at(tmp_path: Path) -> None:
    wrong = dataclasses.replace(plan(steel=tmp_path / "nowhere"), architecture="cdnv2-q")
    with pytest.raises(ModelError, match="unknown architecture"):
        make_base(wrong, tmp_path / "base", made_by="a test")


def test_one_class_is_nothing_to_learn(tmp_path: Path) -> None:
    with pytest.raises(ClassError, match="too few classes"):
        make_base(plan(steel=pictures(tmp_path / "s", ("plain",))), tmp_path / "base", made_by="a test")
