"""From camera to network: training and line read every camera alike, and near to the surface that it looked at."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import List, Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camera_files import GREY, GREY_ALPHA, RGB, RGBA, Camera, tiff_file
from fedclient.worker.engines.model import LineAnswer
from fedclient.worker.line.decision_policy import ASK, PASS, DecisionPolicy
from fedclient.worker.line.input_guard import InputBatch, InputGuard
from fedclient.worker.line.serving.input_pictures import from_encoded, from_pixels
from fedclient.worker.line.settings import VerdictSettings
from fedspect.data.decode import decode, decode_picture, read_header
from fedspect.data.depth import common_depth, levels_of
from fedspect.data.inspection import inspect_pictures
from fedspect.data.preprocess import Preprocessing
from fedspect.data.sources import find_pictures
from fedspect.errors import PictureError, SettingsError

SIDE = 48
PREPARED = Preprocessing(SIDE, 1, (0.5,), (0.25,))
HERE = Path("frame")
CLASSES = ("sound", "scratch")


def surface(seed: int, brightest: float = 0.9, side: int = SIDE) -> np.ndarray:
    """A rough surface with a dark scratch, 0 to 1."""
    random = np.random.default_rng(seed)
    found = random.normal(0.55, 0.1, (side, side))
    found[side // 3 : side // 3 + 3, 4:-4] = 0.1
    return np.clip(found, 0.05, 0.95) / 0.95 * brightest


def cameras() -> st.SearchStrategy[Camera]:
    return st.builds(
        Camera,
        kind=st.sampled_from(["png", "tiff", "pgm"]),
        arrangement=st.sampled_from([GREY, GREY_ALPHA, RGB, RGBA]),
        bits=st.sampled_from([8, 10, 12, 14, 16]),
        big_endian=st.booleans(),
        white_is_zero=st.booleans(),
        stuck=st.integers(0, SIDE * SIDE // 1000),
    ).filter(_exists)


def _exists(camera: Camera) -> bool:
    if camera.kind == "pgm" and camera.arrangement not in (GREY, RGB):
        return False
    if camera.kind == "tiff" and camera.arrangement == GREY_ALPHA:
        return False
    inverted = camera.kind == "tiff" and camera.arrangement == GREY and not camera.big_endian
    return not camera.white_is_zero or inverted


@given(camera=cameras(), gain=st.sampled_from([1.0, 0.9, 0.6]), declared=st.booleans())
@settings(max_examples=60, deadline=None)
def test_training_and_line_read_any_camera_alike_and_see_its_surface(
    camera: Camera, gain: float, declared: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = written(Path(folder), camera, [surface(seed, gain) for seed in range(4)])
        given_depth = camera.bits if declared and camera.bits > 8 else None
        listing = find_pictures(Path(folder), labelled=False)
        inspection = inspect_pictures(listing, overlaps=False, bit_depth=given_depth)
        preprocessing = PREPARED.of_camera(inspection.bit_depth)
        trained = np.stack([preprocessing.load(path) for path in files])
        line = from_encoded([path.read_bytes() for path in files], preprocessing)
    np.testing.assert_array_equal(trained, line.pixels)
    assert list(line.doubts) == [()] * 4
    assert inspection.bit_depth == (None if camera.bits == 8 else camera.bits)
    expected = np.stack([surface(seed, gain) for seed in range(4)])[:, None] * 255
    away = np.abs(trained.astype(float) - expected)
    away.reshape(4, -1)[:, : camera.stuck] = 0
    assert away.max() <= 1.5


def written(folder: Path, camera: Camera, surfaces: List[np.ndarray]) -> List[Path]:
    suffix = {"png": "png", "tiff": "tif", "pgm": "pgm"}[camera.kind]
    paths = [folder / f"{number}.{suffix}" for number in range(len(surfaces))]
    for path, seen in zip(paths, surfaces):
        path.write_bytes(camera.file(seen))
    return paths


@pytest.mark.parametrize("arrangement", [GREY, GREY_ALPHA, RGB, RGBA])
def test_a_camera_of_12_bits_keeps_its_levels_in_every_arrangement(arrangement: str) -> None:
    read = decode(Camera("png", arrangement, bits=12).file(surface(1)), HERE)
    np.testing.assert_array_equal(read, decode(Camera("png", GREY, bits=12).file(surface(1)), HERE))
    assert len(np.unique(read)) > 60


def test_one_stuck_pixel_changes_one_pixel() -> None:
    plain = decode(Camera(bits=10).file(surface(1)), HERE)
    stuck = decode(Camera(bits=10, stuck=1).file(surface(1)), HERE)
    assert (plain != stuck).sum() == 1


def test_dark_pictures_of_a_set_are_read_by_the_depth_of_the_whole_set() -> None:
    bright, dark = Camera(bits=12).file(surface(1)), Camera(bits=12).file(surface(1, brightest=0.1))
    depth = common_depth(decode_picture(each, HERE).levels for each in (bright, dark))
    assert decode(dark, HERE, bit_depth=depth).max() < 30 < decode(dark, HERE).max()
    assert decode(bright, HERE, bit_depth=depth).max() > 200


def test_a_few_pictures_of_another_depth_do_not_decide_that_of_all() -> None:
    ordinary = levels_of(np.full(2000, 4000, np.uint16), None)
    odd = levels_of(np.full(2000, 60_000, np.uint16), None)
    assert common_depth([ordinary] * 150 + [odd]) == 12
    assert common_depth([ordinary] * 9 + [odd]) == 16
    assert common_depth([]) is None


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_white_is_zero_is_turned_round(bits: int) -> None:
    read = decode(Camera("tiff", bits=bits, white_is_zero=True).file(surface(1)), HERE)
    assert np.corrcoef(read.ravel(), surface(1).ravel())[0, 1] > 0.99


def test_colour_of_16_bits_in_planes_is_refused_and_not_misread() -> None:
    content = tiff_file(np.zeros((8, 8, 3), np.int64), 16, 2, planar=2)
    with pytest.raises(PictureError, match="each channel by itself"):
        decode(content, HERE)


def test_a_pgm_tells_its_own_highest_value() -> None:
    values = np.rint(surface(1) * 4095).astype(">u2")
    content = b"P5 48 48 4095\n" + values.tobytes()
    assert read_header(content, HERE).format == "PPM"
    assert np.abs(decode(content, HERE) - surface(1) * 255).max() <= 1.5
    assert np.abs(decode(content, HERE, bit_depth=16) - surface(1) * 255).max() <= 1.5


# -- what no verdict may be sure of ------------------------------------------------------------------------


def reasons(content: bytes, guard: InputGuard, bit_depth: Optional[int] = None) -> str:
    """The reasons that the line gives; empty where it obeys the model, which is sure of a good piece."""
    batch = from_encoded([content], PREPARED.of_camera(bit_depth))
    sure = np.array([[0.99, 0.01]], np.float32)
    policy = DecisionPolicy(VerdictSettings(good_classes=["sound"]), CLASSES, [guard])
    verdict = policy.decide(batch, LineAnswer(sure, sure, np.zeros((1, 0), np.float32)))[0]
    assert verdict.outcome == (ASK if verdict.reasons else PASS)
    return "; ".join(verdict.reasons)


OWN = np.stack([PREPARED.resize((surface(seed) * 255).astype(np.uint8)) for seed in range(20)])
GUARD = InputGuard.of(OWN)


@pytest.mark.parametrize("guard", [GUARD, InputGuard({})])
@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (np.zeros((48, 48)), "almost black"),
        (np.ones((48, 48)), "almost white"),
        (np.full((48, 48), 0.5), "all of one grey"),
        (np.zeros((1, 1)), "1 x 1 pixels only"),
        (np.random.default_rng(0).normal(0.02, 0.005, (48, 48)), "almost black"),
    ],
)
def test_a_frame_that_shows_no_surface_is_asked_about(
    guard: InputGuard, seen: np.ndarray, words: str
) -> None:
    assert words in reasons(Camera().file(seen), guard)


def test_the_plants_own_pictures_pass_and_others_far_from_them_do_not() -> None:
    for seed in range(20, 40):
        assert not reasons(Camera().file(surface(seed)), GUARD)
    assert "far darker" in reasons(Camera().file(surface(1, brightest=0.35)), GUARD)
    flat = np.random.default_rng(0).normal(0.5, 0.01, (48, 48))
    assert "lower in contrast" in reasons(Camera().file(flat), GUARD)
    assert not reasons(Camera().file(flat), InputGuard({}))


def test_a_plant_whose_own_pictures_are_almost_black_is_not_asked_about_each() -> None:
    dark = np.stack([PREPARED.resize((surface(seed, 0.04) * 255).astype(np.uint8)) for seed in range(20)])
    assert not reasons(Camera().file(surface(30, 0.04)), InputGuard.of(dark))
    assert "almost black" in reasons(Camera().file(np.zeros((48, 48))), InputGuard.of(dark))


def test_a_file_deeper_than_all_that_was_learned_from_is_asked_about() -> None:
    content = Camera(bits=12).file(surface(1))
    assert "16 bits per channel" in reasons(content, GUARD)
    assert not reasons(content, GUARD, bit_depth=12)
    assert "brighter than the 10 bits" in reasons(content, GUARD, bit_depth=10)


def test_a_guard_joins_others_and_every_reason_is_said() -> None:
    class Statistical:
        def doubts(self, batch: InputBatch, answer: LineAnswer) -> List[tuple[str, ...]]:
            return [("unlike anything learned",) for _ in batch.pixels]

    sure = np.array([[0.99, 0.01]], np.float32)
    policy = DecisionPolicy(VerdictSettings(good_classes=["sound"]), CLASSES, [InputGuard({}), Statistical()])
    batch = from_encoded([Camera().file(np.zeros((48, 48)))], PREPARED)
    verdict = policy.decide(batch, LineAnswer(sure, sure, np.zeros((1, 0), np.float32)))[0]
    assert verdict.reasons == ("the picture is almost black", "unlike anything learned")


def test_the_bounds_are_kept_for_the_preprocessing_that_they_are_of(tmp_path: Path) -> None:
    GUARD.save(tmp_path, PREPARED)
    assert InputGuard.load(tmp_path, PREPARED) == GUARD
    assert InputGuard.load(tmp_path, PREPARED.of_camera(12)) == InputGuard({})
    assert InputGuard.load(tmp_path / "elsewhere", PREPARED) == InputGuard({})


# -- colour ------------------------------------------------------------------------------------------------


def test_pixels_of_three_channels_are_rgb_unless_the_client_says_bgr() -> None:
    red = np.zeros((1, 20, 20, 3), np.uint8)
    red[..., 0] = 200
    colour = Preprocessing(20, 3, (0.5,) * 3, (0.5,) * 3)
    buffer = Image.fromarray(red[0])
    np.testing.assert_array_equal(from_pixels(red, colour).pixels[0], np.asarray(buffer).transpose(2, 0, 1))
    np.testing.assert_array_equal(
        from_pixels(red[..., ::-1], colour, colour="bgr").pixels,
        from_pixels(red, colour, colour="rgb").pixels,
    )
    with pytest.raises(SettingsError, match="order of colours"):
        from_pixels(red, colour, colour="hsv")
