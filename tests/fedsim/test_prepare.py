"""Preparation fixes one test set for all, deals the rest to plants, and comes to the same each time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_pictures import folder_of, manifest_of, names

from fedsim.config import SimulationSettings
from fedsim.preflight import check_start
from fedsim.prepare import (
    EVALUATION,
    TRAINING,
    check_unchanged,
    fixed_test_set,
    plant_pictures,
    prepare,
)
from fedsim.run_folder import RunFolder
from fedspect.errors import BaseModelError, ClassError, DataError, ModelError, SplitError, WorkspaceError
from fedspect.files import read_json
from fedspect.model import load_base


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return folder_of(tmp_path_factory.mktemp("pictures"))


def settings_for(pictures: Path, **sections) -> SimulationSettings:
    content = {
        "data": {"folder": pictures, **sections.pop("data", {})},
        "plants": {"count": 2, "partition": "iid", **sections.pop("plants", {})},
        "model": {"scratch": True, "architecture": "plain-cnn", "size": 64, **sections.pop("model", {})},
        **sections,
    }
    return SimulationSettings.model_validate(content)


def prepared_in(folder: Path, settings: SimulationSettings):
    run = RunFolder(folder)
    run.start(settings)
    return run, prepare(run, settings)


def test_every_picture_is_in_the_test_set_or_at_one_plant(tmp_path, pictures):
    run, prepared = prepared_in(tmp_path / "run", settings_for(pictures))
    assert prepared.plants == ["plant-1", "plant-2"]
    seen = [each.name for each in fixed_test_set(run, prepared)]
    for plant in prepared.plants:
        held = plant_pictures(run, prepared, plant)
        assert held[TRAINING] and held[EVALUATION]
        seen += [each.name for each in held[TRAINING] + held[EVALUATION]]
    assert sorted(seen) == names(pictures)


def test_a_run_goes_on_with_its_own_pictures_only_and_finds_them_where_they_were_moved(tmp_path, pictures):
    own = tmp_path / "own"
    shutil.copytree(pictures, own)
    run, prepared = prepared_in(tmp_path / "run", settings_for(own))
    check_unchanged(run, prepared)
    own.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="changed or removed"):
        check_unchanged(run, prepared)
    run.pictures_moved_to(tmp_path / "moved")
    prepared = run.read_prepared()
    check_unchanged(run, prepared)
    name = names(pictures)[0]
    (tmp_path / "moved" / name).write_bytes(b"another picture")
    with pytest.raises(DataError, match="1 of") as caught:
        check_unchanged(run, prepared)
    assert caught.value.seen == name


def test_no_group_is_in_both_test_and_training(tmp_path, pictures):
    rows = [(name, name.split("/")[0], f"g{number // 4}") for number, name in enumerate(names(pictures))]
    manifest = manifest_of(pictures, tmp_path / "list.csv", rows, ["group"])
    run, prepared = prepared_in(tmp_path / "run", settings_for(pictures, data={"manifest": manifest}))
    tested = {each.group for each in fixed_test_set(run, prepared)}
    trained = {
        each.group
        for plant in prepared.plants
        for side in plant_pictures(run, prepared, plant).values()
        for each in side
    }
    assert tested and trained and not tested & trained
    assert json.loads(run.test.read_text())["twins_in_training"] == 0


def test_a_random_split_counts_the_twins_that_it_leaves_in_training(tmp_path, pictures):
    rows = [(name, name.split("/")[0], "all one group") for name in names(pictures)]
    manifest = manifest_of(pictures, tmp_path / "list.csv", rows, ["group"])
    settings = settings_for(pictures, data={"manifest": manifest, "split": "random"}, plants={"count": 1})
    run, prepared = prepared_in(tmp_path / "run", settings)
    assert json.loads(run.test.read_text())["twins_in_training"] == len(fixed_test_set(run, prepared)) == 6


def test_the_split_of_a_list_is_taken_as_it_is(tmp_path, pictures):
    rows = [
        (name, name.split("/")[0], "test" if number % 5 == 0 else "train")
        for number, name in enumerate(names(pictures))
    ]
    manifest = manifest_of(pictures, tmp_path / "list.csv", rows, ["split"])
    settings = settings_for(pictures, data={"manifest": manifest, "split": "manifest"})
    run, prepared = prepared_in(tmp_path / "run", settings)
    wanted = sorted(name for name, _, side in rows if side == "test")
    assert [each.name for each in fixed_test_set(run, prepared)] == wanted


def test_pictures_of_a_list_that_are_on_neither_side_are_named(tmp_path, pictures):
    sides = ("train", "test", "validation", "", "train")
    rows = [(name, name.split("/")[0], sides[number % 5]) for number, name in enumerate(names(pictures))]
    manifest = manifest_of(pictures, tmp_path / "list.csv", rows, ["split"])
    run, _ = prepared_in(
        tmp_path / "run", settings_for(pictures, data={"manifest": manifest, "split": "manifest"})
    )
    told = {each["name"]: each["detail"] for each in read_json(run.problems) if each["left_out"]}
    assert sorted(told) == sorted(name for name, _, side in rows if side in ("validation", ""))
    assert any('"validation"' in detail for detail in told.values())


def test_taking_a_split_that_no_list_tells_is_refused_before_a_picture_is_looked_at(tmp_path, pictures):
    with pytest.raises(SplitError, match="no split to take"):
        check_start(settings_for(pictures, data={"split": "manifest"}))


def test_a_list_without_a_test_side_is_a_split_error(tmp_path, pictures):
    rows = [(name, name.split("/")[0], "train") for name in names(pictures)]
    manifest = manifest_of(pictures, tmp_path / "list.csv", rows, ["split"])
    with pytest.raises(SplitError, match="test side"):
        prepared_in(
            tmp_path / "run", settings_for(pictures, data={"manifest": manifest, "split": "manifest"})
        )


def test_a_column_of_the_list_makes_the_plants(tmp_path, pictures):
    rows = [(name, name.split("/")[0], f"line {number % 3}") for number, name in enumerate(names(pictures))]
    manifest = manifest_of(pictures, tmp_path / "list.csv", rows, ["line"])
    settings = settings_for(
        pictures, data={"manifest": manifest}, plants={"partition": "by-column", "column": "line"}
    )
    run, prepared = prepared_in(tmp_path / "run", settings)
    assert len(prepared.plants) == 3
    assert json.loads((run.plants / "plant-2.json").read_text())["origin"] == "line line 1"


def test_without_an_evaluation_share_plants_train_on_all_they_have(tmp_path, pictures):
    run, prepared = prepared_in(tmp_path / "run", settings_for(pictures, data={"evaluation_share": 0.0}))
    assert all(not plant_pictures(run, prepared, plant)[EVALUATION] for plant in prepared.plants)


def test_preparing_twice_and_in_two_places_comes_to_the_same(tmp_path, pictures):
    settings = settings_for(pictures)
    files = {}
    for place in ("one", "two"):
        run, _ = prepared_in(tmp_path / place, settings)
        prepare(run, settings)
        files[place] = {
            path.relative_to(run.path).as_posix(): path.read_bytes()
            for path in sorted(run.path.rglob("*"))
            if path.is_file()
        }
    assert files["one"] == files["two"]


def test_preparation_that_was_cut_short_is_done_again(tmp_path, pictures):
    settings = settings_for(pictures)
    run, before = prepared_in(tmp_path / "run", settings)
    run.prepared.unlink()
    run.test.unlink()
    assert prepare(run, settings) == before
    assert fixed_test_set(run, before)


def test_synthetic_surfaces_lie_in_the_run_folder_and_move_with_it(tmp_path, pictures):
    settings = settings_for(pictures, data={"folder": None, "synthetic_per_class": 5})
    run, prepared = prepared_in(tmp_path / "run", settings)
    assert prepared.root == "pictures"
    moved = RunFolder(run.path.rename(tmp_path / "elsewhere"))
    assert all(each.path.is_file() for each in fixed_test_set(moved, prepared))


def test_from_scratch_nothing_stands_still_unless_asked(tmp_path, pictures):
    _, prepared = prepared_in(tmp_path / "run", settings_for(pictures))
    assert prepared.freeze_levels == 0
    _, prepared = prepared_in(tmp_path / "other", settings_for(pictures, model={"freeze_levels": 2}))
    assert prepared.freeze_levels == 2


def test_a_base_of_another_size_is_laid_down_at_the_size_that_was_asked_for(tmp_path, pictures):
    run, _ = prepared_in(tmp_path / "first", settings_for(pictures))
    model = {"scratch": False, "architecture": None, "base": run.base, "size": 96}
    again, prepared = prepared_in(tmp_path / "second", settings_for(pictures, model=model))
    assert load_base(again.base).card.input_size == 96
    assert prepared.base_hash == load_base(again.base).content_hash != load_base(run.base).content_hash


def test_a_base_of_another_architecture_than_asked_for_is_refused(tmp_path, pictures):
    run, _ = prepared_in(tmp_path / "first", settings_for(pictures))
    model = {"scratch": False, "architecture": "cdnv2-b", "base": run.base}
    with pytest.raises(BaseModelError, match="another architecture"):
        prepared_in(tmp_path / "second", settings_for(pictures, model=model))


def test_more_levels_than_there_are_cannot_stand_still(pictures):
    with pytest.raises(ModelError):
        check_start(settings_for(pictures, model={"freeze_levels": 99}))


def test_a_folder_with_something_in_it_is_not_written_over(tmp_path, pictures):
    settings = settings_for(pictures)
    prepared_in(tmp_path / "run", settings)
    with pytest.raises(WorkspaceError, match="not empty"):
        prepared_in(tmp_path / "run", settings)


def test_bad_files_are_left_out_and_named(tmp_path):
    pictures = folder_of(tmp_path / "pictures", per_class=6)
    (pictures / "dark" / "text.png").write_text("this is no picture")
    whole = (pictures / "light" / "light_0.png").read_bytes()
    (pictures / "light" / "cut.png").write_bytes(whole[: len(whole) // 2])
    run, prepared = prepared_in(tmp_path / "run", settings_for(pictures))
    assert prepared.left_out == 2
    left_out = {each["name"]: each["kind"] for each in json.loads(run.problems.read_text())}
    assert left_out == {"dark/text.png": "not a picture", "light/cut.png": "truncated"}


def test_one_class_whose_pictures_can_be_used_is_too_few(tmp_path):
    pictures = folder_of(tmp_path / "pictures", per_class=4, classes=["dark"])
    (pictures / "light").mkdir()
    (pictures / "light" / "text.png").write_text("this is no picture")
    with pytest.raises(ClassError, match="one class"):
        prepared_in(tmp_path / "run", settings_for(pictures))
