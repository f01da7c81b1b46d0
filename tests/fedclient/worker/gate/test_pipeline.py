from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Callable, List

import numpy as np
import pytest
from PIL import Image

from fedclient.worker.deploy import DeployGraphs, save_graphs
from fedclient.worker.deployments import Deployments
from fedclient.worker.engines import open_model
from fedclient.worker.gate import engine_building as building
from fedclient.worker.gate import pipeline
from fedclient.worker.gate.pipeline import Deployer
from fedclient.worker.line.monitoring.reference_statistics import BY_DEPLOYMENT, BY_HAND, DriftReference
from fedclient.worker.training.head import head_of
from fedclient.worker.training.setup import Site
from fedspect import files
from fedspect.data.pictures import CheckedPicture
from fedspect.discriminant.analysis import solve
from fedspect.discriminant.scores import squared_distances
from fedspect.discriminant.statistics import ClassStatistics
from fedspect.files import write_text
from fedspect.model.base import BaseNetwork
from fedspect.training.settings import TrainingSettings
from fedspect.training.trainer import Trainer
from fedspect.update.schema import Arrays

pytestmark = pytest.mark.slow  # each engine is built in a child process
CLASSES = ("plain", "striped")

Publish = Callable[..., Path]


def turned(head: Arrays) -> Arrays:
    """The same head with its two classes exchanged: every verdict is the other one."""
    return {
        name: np.ascontiguousarray(values[::-1]) if len(values) == len(CLASSES) else values
        for name, values in head.items()
    }


def changed(head: Arrays, by: float = 1e-3) -> Arrays:
    """A little another head that answers alike."""
    return {name: (values * (1 + by)).astype(np.float32) for name, values in head.items()}


def exploding(head: Arrays) -> Arrays:
    """Every number is finite, no answer is."""
    return {
        name: np.full_like(values, 3e38) if name.endswith("weight") else values
        for name, values in head.items()
    }


def test_a_version_is_built_proved_and_activated_and_the_next_keeps_the_backbone(
    home: Path, deployer: Deployer, publish: Publish, trained_head: Arrays
) -> None:
    for path in sorted((home.parent / "pictures").rglob("*.png")):  # enough for a drift reference
        for tone in (1, 2):
            lighter = np.asarray(Image.open(path)) // 2 + 40 * tone
            Image.fromarray(lighter.astype(np.uint8)).save(path.with_name(f"{tone}-{path.name}"))
    stages: List[str] = []
    report = deployer.deploy(publish(trained_head), report=lambda stage, done, total: stages.append(stage))
    assert (report.outcome, report.reasons) == ("activated", [])
    assert list(dict.fromkeys(stages)) == [
        "version",
        "graphs",
        "backbone",
        "head",
        "golden",
        "gate",
        "deployment",
    ]
    first = deployer.deployments.current()
    assert first is not None
    assert first.version == report.version
    assert report.figures["agreement"]["logits_difference"] < 1e-4
    assert report.figures["pictures"] == len(deployer.golden.pictures()) > 0
    with_engines = {stored.id for stored in deployer.store.list()}

    reference = DriftReference.load(home / "line" / "reference")
    assert (reference.made_by, reference.version) == (BY_DEPLOYMENT, report.version)
    replace(reference, made_by=BY_HAND).save(home / "line" / "reference")

    second = deployer.deploy(publish(changed(trained_head), number=2), number=2)
    assert second.outcome == "activated", second.reasons
    assert (
        DriftReference.load(home / "line" / "reference").version == report.version
    )  # what was made by hand stays
    current = deployer.deployments.current()
    assert current is not None
    assert current.number == 2
    assert current.engines["backbone"] == first.engines["backbone"]
    assert len({stored.id for stored in deployer.store.list()} - with_engines) == 1
    assert second.figures["current"] is not None
    with open_model(current, deployer.store).engines[0] as engine:
        assert engine.kind == "onnxruntime"

    again = deployer.deploy(publish(changed(trained_head), number=2))
    assert (again.outcome, again.reasons) == ("activated", ["the line runs it already"])
    assert len([entry for entry in deployer.deployments.history() if entry.serial]) == 2


def test_a_device_that_restarts_with_a_damaged_engine_builds_it_again(
    deployer: Deployer, publish: Publish, trained_head: Arrays
) -> None:
    folder = publish(trained_head)
    assert deployer.deploy(folder).outcome == "activated"
    current = deployer.deployments.current()
    assert current is not None
    stored = deployer.store.get(current.engines["head"])
    content = bytearray(stored.file.read_bytes())
    content[len(content) // 2] ^= 1
    stored.file.write_bytes(bytes(content))
    restarted = Deployer(deployer.settings, lambda: Site(deployer.settings))
    mended = restarted.deploy(folder)
    assert (mended.outcome, mended.reasons) == ("activated", [])
    again = restarted.deployments.current()
    assert again is not None
    assert (again.id, again.activated_at) == (current.id, current.activated_at)  # nothing moved
    open_model(current, restarted.store).close()
    assert restarted.deploy(folder).reasons == ["the line runs it already"]


def test_when_headquarters_goes_back_the_version_before_needs_no_second_gate(
    deployer: Deployer, publish: Publish, trained_head: Arrays
) -> None:
    first = publish(trained_head)
    assert deployer.deploy(first, number=1).outcome == "activated"
    assert deployer.deploy(publish(changed(trained_head), number=2), number=2).outcome == "activated"
    stages: List[str] = []
    back = deployer.deploy(first, number=1, report=lambda stage, done, total: stages.append(stage))
    assert back.outcome == "activated" and "went back" in back.reasons[0]
    assert set(stages) == {"version"}  # nothing was built or measured
    current = deployer.deployments.current()
    assert current is not None and current.number == 1
    assert deployer.deployments.history()[-1].why == "headquarters went back to version 1"


def test_kind_and_precision_can_be_asked_for_once(
    deployer: Deployer, publish: Publish, trained_head: Arrays
) -> None:
    folder = publish(trained_head)
    report = deployer.deploy(folder, activate=False, again=True, overrides={"engine.precision": "float16"})
    assert report.outcome == "failed"
    assert "no such precision" in report.reasons[0]
    report = deployer.deploy(folder, activate=False, again=True, overrides={"engine.kind": "openvino"})
    assert "engine.kind on the command line" in report.reasons[0]
    once = {"engine.kind": "onnxruntime", "engine.precision": None}
    report = deployer.deploy(folder, activate=False, again=True, overrides=once)
    assert "not activated" in report.reasons[0]
    assert report.figures["engine"] == {"kind": "onnxruntime", "precision": "float32"}
    assert deployer.deployments.current() is None


def test_a_worse_version_is_refused_with_figures_and_the_current_one_stays(
    deployer: Deployer, publish: Publish, trained_head: Arrays
) -> None:
    deployer.deploy(publish(trained_head))
    before = deployer.deployments.current()
    report = deployer.deploy(publish(turned(trained_head), number=2))
    assert report.outcome == "refused"
    assert any("called wrong" in reason for reason in report.reasons)
    assert deployer.deployments.current() == before
    refused = deployer.deployments.list()[-1]
    assert (refused.number, refused.state) == (2, "refused")
    assert deployer.deployments.history()[-1].event == "refused"

    forced = deployer.deployments.activate(refused.id, who="a test", why="we know better", force=True)
    assert forced.number == 2
    assert deployer.deployments.history()[-1].forced


def test_the_gate_counts_by_the_lines_good_classes(
    deployer: Deployer, publish: Publish, trained_head: Arrays, home: Path
) -> None:
    (home / "line").mkdir()
    write_text(home / "line" / "line.toml", '[verdicts]\ngood_classes = ["plain"]\n')
    report = deployer.deploy(publish(trained_head))
    assert report.outcome == "activated", report.reasons
    assert report.figures["candidate"]["false_rejects"] is not None
    write_text(home / "line" / "line.toml", '[verdicts]\ngood_classes = ["fine"]\n')
    report = deployer.deploy(publish(changed(trained_head), number=2))
    assert report.outcome == "failed"
    assert "line.toml names a class that the model does not know" in report.reasons[0]


def test_a_version_that_answers_no_numbers_is_refused(
    deployer: Deployer, publish: Publish, trained_head: Arrays
) -> None:
    deployer.deploy(publish(trained_head))
    before = deployer.deployments.current()
    report = deployer.deploy(publish(exploding(trained_head), number=2))
    assert report.outcome == "refused", report.reasons
    assert "no number; seen: 6 of 6 drawn pictures" in report.reasons[0]
    poisoned = {name: values.copy() for name, values in trained_head.items()}
    poisoned[sorted(poisoned)[0]].flat[0] = np.nan
    report = deployer.deploy(publish(poisoned, number=3))
    assert report.outcome == "refused"
    assert "no finite numbers" in report.reasons[0]
    assert deployer.deployments.current() == before
    assert [entry.event for entry in deployer.deployments.history()][-2:] == ["refused", "refused"]


def test_a_version_that_the_plant_went_back_from_is_not_taken_again_by_itself(
    deployer: Deployer, publish: Publish, trained_head: Arrays
) -> None:
    deployer.deploy(publish(trained_head))
    second = publish(changed(trained_head), number=2)
    deployer.deploy(second)
    deployer.deployments.rollback(who="the engineer", why="scratches are missed")
    report = deployer.deploy(second)
    assert report.outcome == "refused"
    assert "the engineer: scratches are missed" in report.reasons[0]
    current = deployer.deployments.current()
    assert current is not None
    assert current.number == 1
    deployer.deployments.activate(deployer.deployments.list()[-1].id, who="the engineer", why="mended")
    assert deployer.deploy(second).outcome == "activated"


def test_damaged_downloads_and_a_base_model_that_is_gone_leave_the_line_alone(
    deployer: Deployer, publish: Publish, trained_head: Arrays, home: Path
) -> None:
    deployer.deploy(publish(trained_head))
    before = deployer.deployments.current()
    folder = publish(changed(trained_head), number=2)
    for name, content in (("card.json", b"{"), ("head.safetensors", b"")):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        report = deployer.deploy(folder)
        assert (report.outcome, report.version) == ("failed", folder.name)
        assert name in report.reasons[0]
        (folder / name).write_bytes(whole)
    assert deployer.deploy(folder, number=7).outcome == "failed"
    assert deployer.deploy(home / "versions" / ("f" * 64)).outcome == "failed"
    deployer._base = None
    (home / "base" / "model.safetensors").write_bytes(b"\0" * 100)
    assert deployer.deploy(folder).outcome == "failed"
    assert deployer.deployments.current() == before


def test_damaged_files_on_the_way_stop_a_candidate_and_a_damaged_current_engine_does_not(
    deployer: Deployer, publish: Publish, trained_head: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployer.deploy(publish(trained_head))
    before = deployer.deployments.current()
    assert before is not None
    second = publish(changed(trained_head), number=2)

    def save_damaged(folder: Path, graphs: DeployGraphs) -> List[Path]:
        paths = save_graphs(folder, graphs)
        content = bytearray((folder / "head.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "head.onnx").write_bytes(bytes(content))
        return paths

    monkeypatch.setattr(building, "save_graphs", save_damaged)
    report = deployer.deploy(second)
    monkeypatch.undo()
    assert report.outcome == "failed"
    assert "ONNX" in report.reasons[0]
    assert deployer.deployments.current() == before

    golden = deployer.golden.path(deployer.golden.pictures()[0])
    content = golden.read_bytes()
    golden.write_bytes(content + b" ")
    report = deployer.deploy(second)
    assert (report.outcome, deployer.deployments.current()) == ("failed", before)
    assert golden.name in report.reasons[0]
    golden.write_bytes(content)

    stored = deployer.store.get(before.engines["head"])
    stored.file.write_bytes(b"\0" * 100)
    report = deployer.deploy(second)
    assert report.outcome == "activated", report.reasons
    assert "the current engine is not compared" in report.figures["remarks"][0]
    assert report.figures["current"] is None


def test_a_full_disk_at_any_step_leaves_the_line_alone(
    deployer: Deployer, publish: Publish, trained_head: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, [0]

    def room_for(writes: int) -> None:
        calls[0] = 0

        def fsync(descriptor: int) -> None:
            calls[0] += 1
            if calls[0] > writes:
                raise OSError(28, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(files.os, "fsync", fsync)

    monkeypatch.setattr(pipeline, "leave_reference", lambda *_, **__: None)  # it comes after the pointer
    deployer.deploy(publish(trained_head))
    second, third = publish(changed(trained_head), number=2), publish(changed(trained_head, 2e-3), number=3)
    room_for(1000)
    assert deployer.deploy(second).outcome == "activated"
    needed, before = calls[0], deployer.deployments.current()
    # The last three are the pointer, its folder and the history's line.
    for writes in (0, needed // 2, needed - 5, needed - 3):
        room_for(writes)
        report = deployer.deploy(third)
        assert report.outcome == "failed"
        assert "no space left" in report.reasons[0]
        assert deployer.deployments.current() == before
    room_for(needed - 2)  # the pointer is in place; what could not be written is mended later
    assert deployer.deploy(third).outcome == "activated"
    monkeypatch.undo()
    current = deployer.deployments.current()
    assert current is not None
    assert current.number == 3
    deployer.deployments.note("failed", "f" * 64, 4, who="a test", why="w")
    written = [entry.serial for entry in Deployments(deployer.deployments.folder).history() if entry.serial]
    assert written == [1, 2, 3]
    assert deployer.deployments.history_path.read_text().count("activated") == 3


def test_a_plant_without_golden_pictures_goes_by_its_rule(
    deployer: Deployer, publish: Publish, trained_head: Arrays, home: Path
) -> None:
    for path in (home.parent / "pictures").rglob("*.png"):
        path.unlink()
    write_text(home / "engines.toml", '[gate]\nwithout_pictures = "refuse"\n')
    report = deployer.deploy(publish(trained_head))
    assert report.outcome == "refused"
    assert "there is no golden picture" in report.reasons[0]
    write_text(home / "engines.toml", "[gate]\nruns = 3\n")
    report = deployer.deploy(publish(trained_head))
    assert report.outcome == "activated"
    assert report.figures["pictures"] == 0
    assert "no new golden pictures" in report.figures["remarks"][0]
    assert str(home.parent) not in report.model_dump_json()


def test_a_mistake_in_the_settings_is_named(
    deployer: Deployer, publish: Publish, trained_head: Arrays, home: Path
) -> None:
    write_text(home / "engines.toml", "[gate]\nmore_escape = 2\n")
    report = deployer.deploy(publish(trained_head))
    assert report.outcome == "failed"
    assert "did you mean gate.more_escapes?" in report.reasons[0]


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from fedclient.worker.gate.pipeline import Deployer
    from fedclient.worker.settings import WorkerSettings
    from fedclient.worker.training.setup import Site

    home, folder, at = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    settings = WorkerSettings.read(home / "worker.json")

    def report(stage, done, total):
        if stage == at:
            os.kill(os.getpid(), signal.SIGKILL)

    deployer = Deployer(settings, lambda: Site(settings))
    if at == "after the pointer":  # the candidate's line is written, that of the move is not
        from fedclient.worker.deployments import history
        write, lines = history.append_line, []

        def append(*arguments):
            lines.append(arguments)
            if len(lines) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            write(*arguments)

        history.append_line = append
    deployer.deploy(folder, report=report)
    """
)


@pytest.mark.timeout(1200)
def test_a_kill_at_any_step_leaves_the_line_alone_and_the_next_try_works(
    deployer: Deployer, publish: Publish, trained_head: Arrays, home: Path
) -> None:
    deployer.deploy(publish(trained_head))
    before = deployer.deployments.current()
    folder = publish(changed(trained_head), number=2)
    for stage in ("graphs", "backbone", "head", "golden", "gate", "deployment"):
        process = subprocess.run(
            [sys.executable, "-c", KILLED, str(home), str(folder), stage],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
        assert process.returncode == -signal.SIGKILL, stage
        assert deployer.deployments.current() == before, stage
        with open_model(before, deployer.store).engines[0]:  # type: ignore[arg-type]
            pass
    last = subprocess.run(
        [sys.executable, "-c", KILLED, str(home), str(folder), "after the pointer"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert last.returncode == -signal.SIGKILL
    current = deployer.deployments.current()
    assert current is not None
    assert current.number == 2
    assert [entry.id for entry in deployer.deployments.history()][-1] == current.id
    assert deployer.deploy(folder).reasons == ["the line runs it already"]
    third = deployer.deploy(publish(changed(trained_head, 2e-3), number=3))
    assert third.outcome == "activated", third.reasons
    assert [entry.serial for entry in deployer.deployments.history() if entry.serial] == [1, 2, 3]
    assert not (home / "deployments" / "candidate").exists()


def closed_form(base: BaseNetwork, pictures: List[CheckedPicture], cache: Path) -> Arrays:
    """A head at the closed form of all pictures."""
    network = base.starting_network(CLASSES, seed=0, freeze_levels=8, closed_form=True)
    trainer = Trainer(
        network,
        base.preprocessing,
        CLASSES,
        TrainingSettings(threads=1, device="cpu"),
        freeze_levels=8,
        base_hash=base.content_hash,
        cache_folder=cache,
        seed=0,
    )
    taps = trainer.taps(pictures, 0)
    labels = np.array([CLASSES.index(str(each.label)) for each in pictures])
    found = solve(ClassStatistics.of(taps, labels, len(CLASSES)), 0.3)
    known = replace(found, temperature=16.0, limit=2.0 * float(squared_distances(found, taps).max()))
    return {**head_of(network), **known.tensors()}


def test_a_closed_form_is_built_proved_and_activated_and_tells_what_is_unlike_training(
    deployer: Deployer,
    publish: Publish,
    base: BaseNetwork,
    pictures: List[CheckedPicture],
    cache: Path,
) -> None:
    head = closed_form(base, pictures, cache)
    report = deployer.deploy(publish(head, closed_form=True))
    assert (report.outcome, report.reasons) == ("activated", [])
    current = deployer.deployments.current()
    assert current is not None
    with contextlib.closing(open_model(current, deployer.store)) as model:
        known = np.stack([base.preprocessing.load(picture.path) for picture in pictures])
        answers = model.answer(known)
        assert answers.features.shape == (len(pictures), 832)
        right = [CLASSES[place] for place in answers.probabilities.argmax(1)]
        assert right == [str(picture.label) for picture in pictures]
        assert answers.unlikeness is not None
        assert (answers.unlikeness < 1).all()
        strange = model.answer(np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64)).astype(np.uint8))
        assert strange.unlikeness is not None
        assert (strange.unlikeness > 1).all()
