from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fedclient.worker.line.drift import ALARM, COLLECTING, NONE, SAME, DriftWatch
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.reference import Reference, Seen, joined, make_reference, seen_of
from fedclient.worker.line.settings import DriftSettings
from fedspect.errors import DamagedFileError, NoPicturesError
from line_parts import BASE_HASH, SIDE, png, run

WINDOW = 60


def surfaces(count: int, seed: int, *, dark_share: float = 0.3) -> np.ndarray:
    """uint8 (N, 1, 16, 16): grained sound pieces and dark ones."""
    random = np.random.default_rng(seed)
    dark = random.random(count) < dark_share
    tones = np.where(dark, random.normal(60, 6, count), random.normal(128, 6, count))
    grain = random.normal(0, 20, (count, 1, SIDE, SIDE))
    return np.asarray(np.clip(tones[:, None, None, None] + grain, 0, 255), dtype=np.uint8)


def seen(home: LineHome, pixels: np.ndarray) -> Seen:
    model = home.open_current()
    answer = model.answer(pixels)
    model.close()
    return seen_of(pixels, answer.features, answer.probabilities)


def watching(home: LineHome, folder: Path, tolerance: float = 2.0) -> DriftWatch:
    model = home.open_current()
    make_reference(seen(home, surfaces(300, 1)), model, BASE_HASH, window=WINDOW).save(folder)
    watch = DriftWatch(folder / "drift.json", DriftSettings(window=WINDOW, tolerance=tolerance))
    watch.begin(model, BASE_HASH, folder)
    return watch


def feed(home: LineHome, watch: DriftWatch, pixels: np.ndarray) -> str:
    for start in range(0, len(pixels), 5):
        watch.add(seen(home, pixels[start : start + 5]))
    return watch.state


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_pictures_such_as_were_learned_raise_no_alarm(home: LineHome, tmp_path: Path, seed: int) -> None:
    watch = watching(home, tmp_path)
    assert watch.state == COLLECTING
    assert feed(home, watch, surfaces(300, seed)) == SAME
    assert set(watch.figures) == {"features", "spread", "confidence", "brightness", "contrast", "sharpness"}


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_another_mixture_of_classes_raises_no_alarm(home: LineHome, tmp_path: Path, share: float) -> None:
    assert feed(home, watching(home, tmp_path), surfaces(300, 5, dark_share=share)) == SAME


def test_darkened_pictures_raise_the_alarm_in_words_and_ending_it_takes_them_away(
    home: LineHome, tmp_path: Path
) -> None:
    watch = watching(home, tmp_path)
    usual = surfaces(300, 6)
    feed(home, watch, usual)
    assert feed(home, watch, (usual * 0.8).astype(np.uint8)) == ALARM
    said = json.loads((tmp_path / "drift.json").read_text())
    assert said["state"] == ALARM and any("darker" in reason for reason in said["reasons"])
    assert said["figures"]["brightness"]["value"] < -said["figures"]["brightness"]["limit"]
    assert feed(home, watch, surfaces(300, 7)) == SAME
    assert json.loads((tmp_path / "drift.json").read_text())["reasons"] == []


def test_blurred_pictures_raise_the_alarm(home: LineHome, tmp_path: Path) -> None:
    watch = watching(home, tmp_path)
    blurred = np.stack(
        [
            np.asarray(Image.fromarray(each[0]).filter(ImageFilter.GaussianBlur(1)))[None]
            for each in surfaces(200, 8)
        ]
    )
    assert feed(home, watch, blurred) == ALARM
    assert any("less sharp" in reason for reason in watch.reasons)


def test_one_odd_measurement_is_no_alarm(home: LineHome, tmp_path: Path) -> None:
    watch = watching(home, tmp_path)
    feed(home, watch, surfaces(120, 9))
    assert feed(home, watch, np.zeros((15, 1, SIDE, SIDE), np.uint8)) == SAME


def test_without_a_reference_or_with_one_of_another_base_nothing_is_claimed(
    home: LineHome, tmp_path: Path
) -> None:
    watch = watching(home, tmp_path)
    watch.begin(home.open_current(), "cd" * 32, tmp_path)
    assert feed(home, watch, np.zeros((200, 1, SIDE, SIDE), np.uint8)) == NONE
    watch.begin(home.open_current(), BASE_HASH, tmp_path / "nowhere")
    assert watch.state == NONE


def test_a_new_reference_is_taken_up_while_pictures_come(home: LineHome, tmp_path: Path) -> None:
    watch = DriftWatch(tmp_path / "drift.json", DriftSettings(window=WINDOW))
    watch.begin(home.open_current(), BASE_HASH, tmp_path)
    assert feed(home, watch, surfaces(100, 3)) == NONE
    make_reference(seen(home, surfaces(300, 1)), home.open_current(), BASE_HASH, window=WINDOW).save(tmp_path)
    assert feed(home, watch, surfaces(100, 3)) == SAME


def test_a_reference_comes_back_as_it_was_written_and_a_damaged_one_is_named(
    home: LineHome, tmp_path: Path
) -> None:
    made = make_reference(seen(home, surfaces(80, 1)), home.open_current(), BASE_HASH, window=WINDOW)
    made.save(tmp_path)
    read = Reference.load(tmp_path)
    pictures = seen(home, surfaces(50, 2))
    assert read.yardstick.measure(pictures) == made.yardstick.measure(pictures) and read.limits == made.limits
    (tmp_path / "reference.safetensors").write_bytes(b"junk")
    with pytest.raises(DamagedFileError, match="drift init"):
        Reference.load(tmp_path)


def test_too_few_pictures_are_no_reference(home: LineHome) -> None:
    with pytest.raises(NoPicturesError, match="too few"):
        make_reference(seen(home, surfaces(10, 1)), home.open_current(), BASE_HASH, window=WINDOW)


def test_windows_are_measured_in_deviations_within_classes() -> None:
    top = np.array([0, 0, 1, 1])
    features = np.array([[0.0], [2.0], [10.0], [12.0]], np.float32)
    base = Seen(features, np.zeros((4, 3)), np.full(4, 0.9), top)
    from fedclient.worker.line.reference import Yardstick

    yardstick = Yardstick.of(base, 2)
    assert yardstick.measure(base)["features"] == 0
    moved = Seen(features + 1, base.plain, base.confidence, top)
    assert yardstick.measure(moved)["features"] == pytest.approx(1.0)
    assert len(joined([base, moved])) == 8


def test_the_commands_make_a_reference_and_show_where_it_stands(home: LineHome, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, pixels in enumerate(surfaces(60, 1)):
        (folder / f"{number}.png").write_bytes(png(pixels[0]))
    done = run(home, "drift", "init", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    limits: Dict[str, Any] = json.loads(done.stdout)["limits"]
    assert json.loads(done.stdout)["pictures"] == 60 and limits["brightness"] > 0
    assert json.loads(run(home, "drift", "show", "--json").stdout)["state"] == NONE
    assert run(home, "drift", "init").returncode == 21
