from __future__ import annotations

import csv
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict

import numpy as np

from fedclient.worker.line.home import LineHome
from line_parts import CLASSES, PREPARED, activate, copy_home, grey, png, probabilities, run


def brightness_in_training(tone: int) -> float:
    """What training's own preprocessing makes of the brightness of one of ``pictures``."""
    return float(PREPARED.resize(grey(tone, 33)).mean())


def pictures(folder: Path) -> Path:
    (folder / "b").mkdir(parents=True)
    for name, tone in (("a.png", 128), ("b/dark.png", 60), ("b/unsure.png", 90)):
        (folder / name).write_bytes(png(grey(tone, 33)))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_gets_a_verdict_for_each_picture_as_json(home: LineHome, tmp_path: Path) -> None:
    done = run(home, "predict", str(pictures(tmp_path / "p")), "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    rows = {Path(row["file"]).name: row for row in content["pictures"]}
    assert content["number"] == 1 and len(rows) == 3
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "a.png": "pass",
        "dark.png": "reject",
        "unsure.png": "ask",
    }
    wanted = probabilities(np.array([brightness_in_training(60)]), 1)[0]
    np.testing.assert_allclose(list(rows["dark.png"]["probabilities"].values()), wanted, atol=1e-5)
    assert rows["dark.png"]["ms"] > 0


def test_names_of_any_bytes_are_printed_in_every_form(home: LineHome, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xfc.png")
    path.write_bytes(png(grey(128)))
    document = run(home, "predict", str(path), "--json")
    assert document.returncode == 0, document.stderr
    assert json.loads(document.stdout)["pictures"][0]["file"] == str(path)
    for arguments in ((), ("--csv",)):
        printed = run(home, "predict", str(path), *arguments)
        assert printed.returncode == 0 and r"\udcfc.png" in printed.stdout, printed.stderr


def test_unreadable_files_are_named_and_the_others_get_their_verdicts(home: LineHome, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p")
    (folder / "half.png").write_bytes(png(grey(3, 60))[:60])
    (folder / "empty.png").write_bytes(b"")
    done = run(home, "predict", str(folder), "--csv")
    assert done.returncode == 22
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 5 and sum(bool(row["error"]) for row in rows) == 2
    assert {(row["number"], row["version"]) for row in rows} == {("1", "01" * 32)}
    (dark,) = [row for row in rows if row["file"].endswith("dark.png")]
    wanted = probabilities(np.array([brightness_in_training(60)]), 1)[0]
    seen = [float(dark[f"probability:{name}"]) for name in CLASSES]
    np.testing.assert_allclose(seen, wanted, atol=1e-5)
    assert "2 of 5 files could not be read" in done.stderr
    document = run(home, "predict", str(folder), "--json")
    assert document.returncode == 22
    assert sum("error" in row for row in json.loads(document.stdout)["pictures"]) == 2
    table = run(home, "predict", str(folder))
    assert table.returncode == 22 and "reject" in table.stdout
    notes = [line for line in table.stderr.splitlines() if line.startswith("note: ")]
    assert sorted(note.count(".png") for note in notes) == [1, 1]


def test_mistakes_end_with_their_exit_codes_and_no_traceback(
    home: LineHome, built_home: LineHome, tmp_path: Path
) -> None:
    cases = [
        (run(home, "predict", str(tmp_path / "nowhere")), 21),
        (run(home, "predict", str(tmp_path)), 21 if not list(tmp_path.rglob("*.png")) else 0),
        (run(home, "predict", "x.png", "--json", "--csv"), 10),
        (run(built_home, "predict", str(pictures(tmp_path / "p"))), 80),
    ]
    for done, code in cases:
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


def test_a_model_without_feature_maps_is_explained_by_occlusion(home: LineHome, tmp_path: Path) -> None:
    done = run(home, "predict", str(pictures(tmp_path / "p")), "--heat-map", str(tmp_path / "heat"))
    assert done.returncode == 0 and "occlusion" in (done.stdout + done.stderr).lower()
    assert list((tmp_path / "heat").rglob("*.png"))


def test_thresholds_are_shown_and_changed(built_home: LineHome, tmp_path: Path) -> None:
    home = copy_home(built_home, tmp_path / "home")
    activate(home, 1)
    shown = json.loads(run(home, "thresholds", "--json").stdout)
    assert [row["good"] for row in shown["classes"]] == [True, False, False]
    changed = run(home, "thresholds", "--sure", "0.7", "--sure-of", "dark=0.95", "--json")
    rows = {row["class"]: row["sure"] for row in json.loads(changed.stdout)["classes"]}
    assert rows == {"sound": 0.7, "dark": 0.95, "bright": 0.7}
    assert "sure = 0.7" in (home.line / "line.toml").read_text()
    refused = run(home, "thresholds", "--sure-of", "drak=0.5")
    assert refused.returncode == 10 and "did you mean dark" in refused.stderr
    assert "--sure-of names a class that the model does not know" in refused.stderr
    refused = run(home, "thresholds", "--good", "nogood")
    assert refused.returncode == 10 and "--good names a class that the model" in refused.stderr
    assert "drak" not in (home.line / "line.toml").read_text()
    heading = run(home, "thresholds").stdout.replace("│", " ").replace("┃", " ").split()
    assert heading[heading.index("class") :][:4] == ["class", "good", "sure", "from"]


def test_help_does_not_ask_for_what_has_a_default(home: LineHome) -> None:
    shown = run(home, "serve", "--help")
    assert shown.returncode == 0 and "--home" in shown.stdout and "required" not in shown.stdout


def test_bench_measures_the_engines_of_the_current_version(home: LineHome, tmp_path: Path) -> None:
    done = run(home, "bench", "--seconds", "0.2", "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)["engines"][0]
    assert (row["kind"], row["precision"]) == ("onnxruntime", "float32")
    assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert row["answers"] >= 20 and row["pictures_per_second"] > 0 and row["peak_mib"] > 0
    table = run(home, "bench", "--seconds", "0.2", "--pictures", str(pictures(tmp_path / "p")))
    assert table.returncode == 0 and "onnxruntime float32" in table.stdout


def test_bench_compares_kinds_whose_graphs_differ(home: LineHome) -> None:
    deployment = home.deployments.current()
    assert deployment is not None
    for part in ("backbone", "head"):
        _other_kind(home, deployment.engines[part], "float16")
    other = next(each for each in home.deployments.list() if each.id != deployment.id)
    _other_kind(home, other.engines["head"], "int8")  # another version's
    engines = json.loads(run(home, "bench", "--seconds", "0.2", "--json").stdout)["engines"]
    assert [row["precision"] for row in engines] == ["float32", "float16"]


def _other_kind(home: LineHome, engine: str, precision: str) -> None:
    """A stored engine once more, as if it had been built of another graph in another precision."""
    stored = home.store.get(engine)
    key = replace(stored.key, onnx_hash="cd" * 32, precision=precision)

    def build(file: Path) -> Dict[str, Any]:
        shutil.copyfile(stored.file, file)
        return dict(stored.sidecar)

    home.store.add(key, build)
