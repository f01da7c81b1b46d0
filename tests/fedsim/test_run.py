"""A run goes from a folder of pictures to a model, a table and a report, and survives being interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedsim.commands.output_folder import folder_to_resume
from fedsim.commands.overrides import Overrides
from fedsim.config import SimulationSettings
from fedsim.report import load_run
from fedsim.run_folder import MADE, RunFolder
from fedspect.data.sources import find_pictures
from fedspect.errors import WorkspaceError
from fedspect.model import load_base
from quick_runs import CALM, QUICK

ROUNDS = 12


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pictures):
    """A run that nothing disturbed."""
    from fedsim.run import start_run

    path = tmp_path_factory.mktemp("runs") / "whole"
    given = {
        "data": pictures,
        "scratch": True,
        "model": "plain-cnn",
        "size": 64,
        "plants": 2,
        "partition": "iid",
        "rounds": ROUNDS,
        "local_epochs": 1,
        "threads": 1,
        "device": "cpu",
    }
    return start_run(path, Overrides(given).settings(), command="fedsim run ...")


def test_a_run_learns_and_leaves_everything_in_its_folder(finished):
    assert finished.rounds == ROUNDS
    assert finished.evaluation.num_examples == 6
    assert finished.evaluation.accuracy > 0.6
    for name in (
        "config.toml",
        "run.json",
        "metrics.jsonl",
        "evaluation.json",
        "model/card.json",
        "model/model.safetensors",
        "plants/plant-1.json",
        "report.html",
    ):
        assert (finished.folder.path / name).is_file(), name


def test_a_run_leaves_nothing_in_its_folder_that_overwriting_would_not_know(finished):
    assert {each.name for each in finished.folder.path.iterdir()} <= MADE


def test_its_report_knows_every_round_and_how_the_run_stands(finished):
    summary = load_run(finished.folder.path)
    assert summary.facts.state == "finished"
    assert [each.round for each in summary.rounds] == list(range(1, ROUNDS + 1))
    assert all(each.tested_accuracy is not None for each in summary.rounds)
    assert summary.rounds[-1].tested_accuracy == finished.evaluation.accuracy
    assert len(summary.predictions) == finished.evaluation.num_examples
    assert summary.damaged_rows == 0
    assert summary.facts.plants[0].pictures + summary.facts.plants[1].pictures > 15


def test_the_model_that_came_out_is_a_base_model_that_answers_as_it_was_measured(finished, pictures):
    model = load_base(finished.folder.model)
    assert model.card.classes == ["dark", "light", "striped"]
    network = model.network(model.card.classes, seed=0).eval()
    import torch

    from fedsim.prepare import fixed_test_set

    right = 0
    tested = fixed_test_set(finished.folder, finished.prepared)
    with torch.no_grad():
        for each in tested:
            pixels = model.preprocessing.normalise(model.preprocessing.load(each.path))
            answer = int(network(torch.from_numpy(pixels)[None]).argmax())
            right += model.card.classes[answer] == each.label
    assert right / len(tested) == finished.evaluation.accuracy


def start(environment: dict, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from fedsim.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def rounds_closed(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count('"RoundClosed"') if metrics.exists() else 0


def wait_for(process: subprocess.Popen[str], run: Path, rounds: int) -> None:
    while rounds_closed(run) < rounds:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.slow
def test_a_run_that_was_interrupted_and_then_killed_comes_to_the_same_model(
    finished, pictures, tmp_path, environment, fedsim
):
    run = tmp_path / "run"
    options = ("--data", pictures, *QUICK, *CALM, "--rounds", ROUNDS, "--local-epochs", 1)
    first = start(environment, "run", *options, "--output", run)
    wait_for(first, run, 2)
    os.kill(first.pid, signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "--resume" in errors and str(run) in errors and "Traceback" not in errors
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    before = rounds_closed(run)
    assert 2 <= before < ROUNDS

    second = start(environment, "run", "--resume", "--output", run)
    wait_for(second, run, before + 2)
    second.kill()
    second.communicate()
    assert json.loads((run / "run.json").read_text())["state"] == "running"
    assert rounds_closed(run) < ROUNDS

    ended = fedsim("run", "--resume", "--output", run, "--json")
    assert ended.code == 0
    assert load_base(run / "model").content_hash == load_base(finished.folder.model).content_hash
    assert ended.json["evaluation"]["accuracy"] == finished.evaluation.accuracy
    summary = load_run(run)
    assert [each.round for each in summary.rounds] == list(range(1, ROUNDS + 1))
    assert summary.facts.state == "finished"


@pytest.mark.slow
def test_flowers_own_engine_comes_to_the_same_model(finished, pictures, tmp_path, environment):
    run = tmp_path / "run"
    options = ("--data", pictures, *QUICK, *CALM, "--rounds", ROUNDS, "--local-epochs", 1)
    process = start(environment, "run", *options, "--backend", "ray", "--output", run, "--json")
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads(out)["rounds"] == ROUNDS
    assert load_base(run / "model").content_hash == load_base(finished.folder.model).content_hash


def test_going_on_with_a_finished_run_changes_nothing(finished, fedsim):
    def content() -> dict:
        files = (path for path in finished.folder.path.rglob("*") if path.is_file() and path.name != ".lock")
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = content()
    ended = fedsim("run", "--resume", "--output", finished.folder.path, "--json")
    assert ended.code == 0
    assert content() == before
    assert ended.json["evaluation"]["accuracy"] == finished.evaluation.accuracy
    assert ended.json["rounds"] == ROUNDS and ended.json["seconds"] == finished.seconds


def test_rows_that_a_killed_run_could_not_write_any_more_are_mended(finished, tmp_path, fedsim):
    run = Path(shutil.copytree(finished.folder.path, tmp_path / "run"))
    metrics = run / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    lost = [
        row for row in rows if row.get("record", {}).get("round") == ROUNDS or row.get("round") == ROUNDS - 1
    ]
    assert {row["event"] for row in lost} >= {"RoundClosed", "ModelTested"}
    kept = [json.dumps(row) for row in rows if row not in lost]
    metrics.write_text("\n".join(kept) + '\n{"event": "Roun')
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "state": "running"}))
    assert fedsim("run", "--resume", "--output", run).code == 0
    summary = load_run(run)
    assert [each.round for each in summary.rounds] == list(range(1, ROUNDS + 1))
    assert [each.tested_accuracy for each in summary.rounds] == [
        each.tested_accuracy for each in load_run(finished.folder.path).rounds
    ]


def test_a_second_process_is_kept_out_of_a_run(finished, fedsim):
    with finished.folder.held():
        ended = fedsim("run", "--resume", "--output", finished.folder.path)
    assert ended.code == 62
    assert str(os.getpid()) in ended.err


def test_a_run_does_not_write_over_another(finished, pictures, fedsim):
    ended = fedsim("run", "--data", pictures, *QUICK, "--output", finished.folder.path)
    assert ended.code == 61
    assert "--resume" in ended.err


def test_an_earlier_run_is_not_removed_for_one_that_cannot_begin(finished, pictures, fedsim):
    options = ("--data", pictures, *QUICK, "--freeze-levels", 40, "--output", finished.folder.path)
    assert fedsim("run", *options, "--overwrite").code == 30
    assert load_run(finished.folder.path).facts.state == "finished"


def test_an_earlier_run_is_removed_only_if_nothing_else_is_in_its_folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.start(SimulationSettings())
    (run.path / "plants").mkdir()
    (run.path / "plants" / "plant-1.json").write_text("{}")
    (run.path / "my notes.txt").write_text("precious")
    with pytest.raises(WorkspaceError, match=r"my notes\.txt"):
        run.clear()
    assert (run.path / "plants" / "plant-1.json").exists()
    (run.path / "my notes.txt").unlink()
    run.clear()
    run.check_empty()


def test_a_folder_that_was_never_a_run_is_not_overwritten_whatever_its_files_are_called(
    pictures, tmp_path, fedsim
):
    project = tmp_path / "project"
    shutil.copytree(pictures, project / "pictures")
    before = sorted(project.rglob("*"))
    options = ("--data", pictures, *QUICK, "--output", project, "--overwrite")
    ended = fedsim("run", *options)
    assert ended.code == 61 and "pictures" in ended.err
    assert sorted(project.rglob("*")) == before


def test_pictures_that_lie_in_the_folder_to_overwrite_are_not_removed(pictures, tmp_path, fedsim):
    run = RunFolder(tmp_path / "run")
    run.start(SimulationSettings())
    shutil.copytree(pictures, run.pictures)
    before = sorted(run.path.rglob("*"))
    ended = fedsim("run", "--data", run.pictures, *QUICK, "--output", run.path, "--overwrite")
    assert ended.code == 61 and "learns from" in ended.err
    assert sorted(run.path.rglob("*")) == before


def test_a_run_goes_on_with_its_own_settings_only(finished, fedsim):
    ended = fedsim("run", "--resume", "--output", finished.folder.path, "--rounds", 99, "--set", "seed=3")
    assert ended.code == 10
    assert "--rounds" in ended.err and "--set" in ended.err


def test_going_on_where_there_is_no_run_is_said(tmp_path, fedsim, monkeypatch):
    assert fedsim("run", "--resume", "--output", tmp_path / "nothing").code == 61
    monkeypatch.chdir(tmp_path)
    assert fedsim("run", "--resume").code == 61


def begun(run: Path, at: int, state: str | None) -> Path:
    """A run's folder as far as the choice of one looks into it, last worked on at second ``at``."""
    run.mkdir(parents=True)
    (run / "config.toml").touch()
    if state is not None:
        (run / "run.json").write_text(json.dumps({"state": state}))
    for file in run.iterdir():
        os.utime(file, (at, at))
    return run


def test_the_run_to_go_on_with_is_the_last_that_is_not_finished_whatever_the_names(tmp_path):
    def chosen() -> Path:
        return folder_to_resume(None, tmp_path, Overrides({}))

    begun(tmp_path / "two", 300, "finished")
    begun(tmp_path / "2026-01-02_03-04-05", 200, "finished")
    assert chosen().name == "two"
    begun(tmp_path / "2026-01-01_03-04-05", 100, "interrupted")
    assert chosen().name == "2026-01-01_03-04-05"
    begun(tmp_path / "one", 150, "running")  # killed
    assert chosen().name == "one"
    begun(tmp_path / "2026-01-03_03-04-05", 160, None)  # killed before it said anything
    assert chosen().name == "2026-01-03_03-04-05"
    (tmp_path / "two" / "run.json").write_text("torn")
    assert chosen().name == "2026-01-03_03-04-05"


def test_per_plant_statistics_stay_at_the_plants_and_the_model_gets_their_mean(tmp_path, pictures, fedsim):
    run = tmp_path / "run"
    options = ("--data", pictures, "--scratch", "--model", "cdnv2-a", "--size", "64", "--plants", "2")
    ended = fedsim(
        "run", *options, *CALM, "--freeze-levels", 8, "--rounds", 1, "--local-epochs", 1,
        "--batch-norm", "per-plant", "--output", run, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    from safetensors.numpy import load_file

    served = load_file(run / "rounds" / "0001" / "head.safetensors")
    assert not [name for name in served if name.endswith("running_mean")]
    plants = [
        load_file(next((run / "work" / plant).rglob("rounds/*.safetensors")))
        for plant in ("plant-1", "plant-2")
    ]
    model = load_file(run / "model" / "model.safetensors")
    name = next(key for key in plants[0] if key.endswith("running_mean"))
    mean = (plants[0][name].astype("float64") + plants[1][name]) / 2
    assert abs(model[name.removeprefix("statistics/")] - mean).max() < 1e-6


def test_pictures_are_never_copied_into_the_run(finished, pictures):
    names = {each.path.name for each in find_pictures(pictures).pictures}
    assert not [path for path in finished.folder.path.rglob("*.png") if path.name in names]
