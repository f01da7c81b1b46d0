"""Drawn scenes of many materials: seeded, in grey and colour, and a defect shows in each."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsim.synthetic import SCENES, draw_scene, draw_scenes, picture_rng
from fedsim.synthetic.faults import FAULTS
from fedsim.synthetic.materials import MATERIALS, draw_material
from fedspect.errors import SettingsError


@pytest.mark.parametrize("kind", SCENES)
def test_a_scene_is_drawn_again_from_its_seed_and_another_number_draws_another(kind: str) -> None:
    first = draw_scene(kind, 48, picture_rng(2, kind, 0))
    assert first.shape == (48, 48) and first.dtype == np.uint8 and first.std() > 1
    assert np.array_equal(first, draw_scene(kind, 48, picture_rng(2, kind, 0)))
    assert not np.array_equal(first, draw_scene(kind, 48, picture_rng(2, kind, 1)))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_defect_changes_the_surface_where_it_lies_and_little_elsewhere(fault: str) -> None:
    draw, materials = FAULTS[fault]
    for name in materials:
        rng = np.random.default_rng(7)
        sound = draw_material(name, 96, rng)
        changed = copy.deepcopy(sound)
        draw(changed, rng)
        difference = np.abs(changed.tone - sound.tone) + np.abs(changed.height - sound.height)
        assert difference.max() > 0.1, name
        assert np.isfinite(changed.tone).all() and np.isfinite(changed.height).all()
        assert (difference < 0.05).mean() > 0.3, name


@pytest.mark.parametrize("material", MATERIALS)
def test_in_colour_a_scene_has_three_channels(material: str) -> None:
    picture = draw_scene(f"{material}-stain", 48, picture_rng(0, material, 0), channels=3)
    assert picture.shape == (48, 48, 3)


def test_a_folder_of_scenes_has_one_folder_a_class_and_is_completed_when_it_was_begun(tmp_path: Path) -> None:
    draw_scenes(tmp_path / "set", per_class=1, size=32, seed=1, channels=3)
    files = sorted((tmp_path / "set").rglob("*.png"))
    assert {file.parent.name for file in files} == set(SCENES) and len(files) == len(SCENES)
    with Image.open(files[0]) as picture:
        assert (picture.mode, picture.size) == ("RGB", (32, 32))
    content = files[3].read_bytes()
    files[3].unlink()
    draw_scenes(tmp_path / "set", per_class=1, size=32, seed=1, channels=3)
    assert files[3].read_bytes() == content


def test_an_unknown_scene_or_a_size_out_of_range_is_refused_with_what_is_accepted() -> None:
    with pytest.raises(SettingsError, match="woven-stain"):
        draw_scene("paper-stain", 64, picture_rng(0, "", 0))
    with pytest.raises(SettingsError, match="32 to 2048"):
        draw_scene("woven-stain", 8, picture_rng(0, "", 0))
