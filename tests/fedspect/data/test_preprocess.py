from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drawn_surfaces import strip, write
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import PictureError, SettingsError

THREE = Preprocessing(32, 3, (0.5, 0.4, 0.3), (0.2, 0.25, 0.1))
ONE = Preprocessing(32, 1, (0.5,), (0.25,))


def test_a_picture_becomes_a_square_of_the_networks_channels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", strip(1, 50, 90))
    for preprocessing in (ONE, THREE):
        loaded = preprocessing.load(path)
        assert loaded.shape == (preprocessing.channels, 32, 32)
        assert loaded.dtype == np.uint8
        assert loaded.flags.c_contiguous


def test_a_picture_of_the_right_size_is_not_touched(tmp_path: Path) -> None:
    pixels = strip(1, 32, 32)
    assert np.array_equal(ONE.load(write(tmp_path / "a.png", pixels))[0], pixels)


def test_shrinking_averages_instead_of_picking() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (320, 160))
    assert np.abs(ONE.resize(stripes)[:, :, 1:-1].astype(int) - 127).max() <= 2


def test_normalising_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    pixels = np.stack([np.full((2, 2), value, np.uint8) for value in (255, 51, 0)])
    assert THREE.normalise(pixels).dtype == np.float32
    assert np.allclose(THREE.normalise(pixels)[:, 0, 0], [2.5, -0.8, -3.0], atol=1e-6)
    assert THREE.normalise(pixels[None]).shape == (1, 3, 2, 2)


def test_colour_pixels_become_grey_for_a_network_of_one_channel() -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    assert ONE.resize(red)[0, 0, 0] == 60


def test_the_key_changes_with_everything_that_changes_the_answer() -> None:
    others = [
        Preprocessing(33, 1, (0.5,), (0.25,)),
        Preprocessing(32, 1, (0.6,), (0.25,)),
        Preprocessing(32, 1, (0.5,), (0.26,)),
        THREE,
    ]
    assert len({each.key for each in [ONE, *others]}) == 5
    assert Preprocessing(32, 1, [0.5], [0.25]).key == ONE.key  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        (0, 1, (0.5,), (0.2,)),
        (32, 2, (0.5,) * 2, (0.2,) * 2),
        (32, 3, (0.5,), (0.2,)),
        (32, 1, (0.5,), (0.0,)),
    ],
)
def test_values_that_cannot_be_used_are_refused(values: tuple) -> None:
    with pytest.raises(SettingsError):
        Preprocessing(*values)


def test_a_bad_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("text")
    with pytest.raises(PictureError, match=r"bad\.png"):
        ONE.load(tmp_path / "bad.png")
