from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fedclient.worker.line.decision_policy import DecisionPolicy
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.monitoring.drift import ALARM, COLLECTING, NONE, SAME, UNSEEN, DriftWatch, shown
from fedclient.worker.line.monitoring.metrics import Metrics
from fedclient.worker.line.monitoring.reference_statistics import (
    BatchStatistics,
    DriftReference,
    batch_statistics,
    joined,
    make_reference,
)
from fedclient.worker.line.monitoring.telemetry import Telemetry
from fedclient.worker.line.serving.model_leases import Job, Lease, LoadedModel
from fedclient.worker.line.settings import DriftSettings, VerdictSettings
from fedspect.errors import DamagedFileError, NoPicturesError
from fedspect.locking import Occupied
from line_parts import BASE_HASH, SIDE, png, run

WINDOW = 60


def surfaces(count: int, seed: int, *, dark_share: float = 0.3) -> np.ndarray:
    """uint8 (N, 1, 16, 16): grained sound pieces and dark ones."""
    random = np.random.default_rng(seed)
    dark = random.random(count) < dark_share
    tones = np.where(dark, random.normal(60, 6, count), random.normal(128, 6, count))
    grain = random.normal(0, 20, (count, 1, SIDE, SIDE))
    return np.asarray(np.clip(tones[:, None, None, None] + grain, 0, 255), dtype=np.uint8)


def seen(home: LineHome, pixels: np.ndarray) -> BatchStatistics:
    model = home.open_current()
    answer = model.answer(pixels)
    model.close()
    return batch_statistics(pixels, answer.features, answer.probabilities)


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


def test_an_alarm_outlives_another_version_and_the_process_and_ends_by_measuring(
    home: LineHome, tmp_path: Path
) -> None:
    watch = watching(home, tmp_path)
    dark = (surfaces(300, 6) * 0.8).astype(np.uint8)
    assert feed(home, watch, dark) == ALARM
    before = watch.as_dict()
    watch.begin(home.open_current(), BASE_HASH, tmp_path)
    assert watch.state == ALARM and watch.reasons == before["reasons"]

    again = DriftWatch(tmp_path / "drift.json", DriftSettings(window=WINDOW))
    again.begin(home.open_current(), BASE_HASH, tmp_path)
    said = json.loads((tmp_path / "drift.json").read_text())
    for name in ("state", "since", "reasons", "figures"):
        assert said[name] == before[name]
    assert feed(home, again, dark) == ALARM
    assert feed(home, again, surfaces(300, 7)) == SAME

    again.begin(home.open_current(), "cd" * 32, tmp_path)  # a reference that does not fit says nothing more
    assert again.state == NONE and not again.figures


def test_a_damaged_report_of_the_drift_before_is_no_alarm(tmp_path: Path) -> None:
    for text in (
        "junk",
        "[]",
        '{"state": "drift"}',
        '{"state": "drift", "since": 1, "figures": 3, "reasons": 4}',
    ):
        (tmp_path / "drift.json").write_text(text)
        assert DriftWatch(tmp_path / "drift.json", DriftSettings()).state == NONE


def test_figures_of_the_reference_before_are_not_exported_any_more() -> None:
    metrics = Metrics()
    metrics.drifts(ALARM, {"brightness": {"value": 3.0, "limit": 1.0}})
    assert 'fedspect_line_drift{figure="brightness"} 3.0' in metrics.text().decode()
    metrics.drifts(COLLECTING, {})
    assert "brightness" not in metrics.text().decode()


def test_who_could_not_watch_for_drift_takes_over_when_the_other_process_ends(
    home: LineHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = home.open_current()
    make_reference(seen(home, surfaces(300, 1)), model, BASE_HASH, window=WINDOW).save(home.reference)
    other = Occupied(home.line / "drift.lock", "the watch for drift")
    other.acquire()
    asked = threading.Semaphore(0)

    def drift() -> Optional[DriftWatch]:
        try:
            return home.drift_watch(DriftSettings(window=WINDOW))
        finally:
            asked.release()

    telemetry = Telemetry(drift=drift)
    deployment = home.deployments.current()
    assert deployment is not None
    telemetry.model_replaced(model, deployment, home.reference)
    assert asked.acquire(timeout=20) and telemetry.drift is None
    other.release()
    telemetry._again_at = 0.0  # time passes
    pixels = surfaces(5, 2)
    job = Job(
        Lease(LoadedModel(model), DecisionPolicy(VerdictSettings(), model.classes)),
        pixels,
        answer=model.answer(pixels),
    )
    telemetry.answered(model, job, [], lambda place: b"", 0.0)
    telemetry.close()
    assert telemetry.drift is not None and telemetry.drift.state == COLLECTING
    assert json.loads(home.drift_path.read_text())["number"] == 1


def test_what_is_shown_without_a_process_is_what_the_files_say(home: LineHome, tmp_path: Path) -> None:
    path = tmp_path / "drift.json"
    assert shown(path, tmp_path) == {"state": NONE}
    watch = DriftWatch(path, DriftSettings(window=WINDOW))
    watch.begin(home.open_current(), BASE_HASH, tmp_path)
    assert shown(path, tmp_path) == {"state": NONE}
    make_reference(seen(home, surfaces(80, 1)), home.open_current(), BASE_HASH, window=WINDOW).save(tmp_path)
    assert shown(path, tmp_path) == {"state": UNSEEN}
    watch.begin(home.open_current(), BASE_HASH, tmp_path)
    assert shown(path, tmp_path)["state"] == COLLECTING


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
    read = DriftReference.load(tmp_path)
    pictures = seen(home, surfaces(50, 2))
    assert (
        read.statistics.measure(pictures) == made.statistics.measure(pictures) and read.limits == made.limits
    )
    (tmp_path / "reference.safetensors").write_bytes(b"junk")
    with pytest.raises(DamagedFileError, match="drift init"):
        DriftReference.load(tmp_path)


def test_too_few_pictures_are_no_reference(home: LineHome) -> None:
    with pytest.raises(NoPicturesError, match="too few"):
        make_reference(seen(home, surfaces(10, 1)), home.open_current(), BASE_HASH, window=WINDOW)


def test_windows_are_measured_in_deviations_within_classes() -> None:
    top = np.array([0, 0, 1, 1])
    features = np.array([[0.0], [2.0], [10.0], [12.0]], np.float32)
    base = BatchStatistics(features, np.zeros((4, 3)), np.full(4, 0.9), top)
    from fedclient.worker.line.monitoring.reference_statistics import ReferenceStatistics

    statistics = ReferenceStatistics.of(base, 2)
    assert statistics.measure(base)["features"] == 0
    moved = BatchStatistics(features + 1, base.plain, base.confidence, top)
    assert statistics.measure(moved)["features"] == pytest.approx(1.0)
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
    assert json.loads(run(home, "drift", "show", "--json").stdout) == {"state": UNSEEN}
    assert run(home, "drift", "show").stdout.strip() == UNSEEN
    assert run(home, "drift", "init").returncode == 21
    rows = "".join(f"{number}.png,dark\n" for number in range(60))
    (folder / "list.csv").write_text("path,class\n" + rows)
    (home.folder / "plant.json").write_text(json.dumps({"data": str(folder / "list.csv")}))
    assert json.loads(run(home, "drift", "init", "--json").stdout)["pictures"] == 60
