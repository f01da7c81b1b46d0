"""Synthetic surfaces: seeded, whole, safe to draw again, and refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsim.synthetic import CLASSES, draw_dataset, draw_picture, picture_rng
from fedspect.errors import SettingsError, StorageError


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("size", [32, 75, 128])
def test_a_picture_has_the_size_asked_for_and_shows_something(kind: str, size: int) -> None:
    picture = draw_picture(kind, size, picture_rng(0, kind, 0))
    assert picture.shape == (size, size)
    assert picture.dtype == np.uint8
    assert picture.std() > 2


@pytest.mark.parametrize("kind", CLASSES)
def test_the_same_seed_class_and_number_draw_the_same_picture_and_others_another(kind: str) -> None:
    first = draw_picture(kind, 64, picture_rng(5, kind, 7))
    assert np.array_equal(first, draw_picture(kind, 64, picture_rng(5, kind, 7)))
    assert not np.array_equal(first, draw_picture(kind, 64, picture_rng(5, kind, 8)))
    assert not np.array_equal(first, draw_picture(kind, 64, picture_rng(6, kind, 7)))


def test_a_data_set_has_a_folder_per_class_with_readable_grey_pictures(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "set", per_class=3, size=48, seed=1)
    assert sorted(folder.name for folder in (tmp_path / "set").iterdir() if folder.is_dir()) == sorted(
        CLASSES
    )
    files = sorted((tmp_path / "set").rglob("*.png"))
    assert len(files) == 18
    for file in files:
        with Image.open(file) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (48, 48))


def test_a_larger_set_begins_with_the_pictures_of_a_smaller_one(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "small", per_class=1, size=32, seed=4)
    draw_dataset(tmp_path / "large", per_class=2, size=32, seed=4)
    for file in (tmp_path / "small").rglob("*.png"):
        assert file.read_bytes() == (tmp_path / "large" / file.parent.name / file.name).read_bytes()


def test_progress_counts_every_picture_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    draw_dataset(
        tmp_path / "set",
        per_class=2,
        size=32,
        seed=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 12) for done in range(1, 13)]


def test_a_set_that_was_broken_off_is_completed_to_the_same_pictures(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path / "broken", per_class=2, size=32, seed=9, progress=stop)
    draw_dataset(tmp_path / "broken", per_class=2, size=32, seed=9)
    draw_dataset(tmp_path / "whole", per_class=2, size=32, seed=9)

    def contents(folder: Path) -> dict[str, bytes]:
        return {
            str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()
        }

    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_a_folder_with_other_files_or_another_seed_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(SettingsError, match="other files"):
        draw_dataset(tmp_path, per_class=1, size=32, seed=0)
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]

    draw_dataset(tmp_path / "set", per_class=1, size=32, seed=0)
    before = {file: file.read_bytes() for file in (tmp_path / "set").rglob("*.png")}
    with pytest.raises(SettingsError, match="other settings"):
        draw_dataset(tmp_path / "set", per_class=1, size=32, seed=1)
    assert before == {file: file.read_bytes() for file in (tmp_path / "set").rglob("*.png")}


def test_what_cannot_be_drawn_is_refused_with_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"seen: rust; accepted: crazing, inclusion"):
        draw_picture("rust", 64, np.random.default_rng(0))
    with pytest.raises(SettingsError, match="32 to 2048"):
        draw_picture("pitting", 16, np.random.default_rng(0))
    with pytest.raises(SettingsError, match="seen: 0"):
        draw_dataset(tmp_path / "set", per_class=0, size=64, seed=0)
    assert not (tmp_path / "set").exists()


def test_a_file_in_the_place_of_the_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="synthetic pictures"):
        draw_dataset(tmp_path / "file", per_class=1, size=32, seed=0)
