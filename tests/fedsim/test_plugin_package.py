"""A package of someone else's, installed for real: each of its five plug-ins is used, from a run to the line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from small_pictures import CLASSES

from fedclient.worker.engines import available_kinds, open_model
from fedclient.worker.gate.pipeline import Deployer
from fedclient.worker.line.home import LineHome
from fedclient.worker.settings import WorkerSettings
from fedclient.worker.training.head import head_of
from fedclient.worker.training.setup import Site
from fedserver.aggregation.registry import build_aggregator
from fedserver.rounds.events import Event, RoundClosed
from fedsim.commands.overrides import Overrides
from fedsim.run import NoView, RunResult, resume_run, start_run
from fedspect.data.view_settings import ViewSettings
from fedspect.data.views import apply_view
from fedspect.errors import InterruptedRunError, ModelError, SettingsError
from fedspect.files import write_bytes, write_json, write_text
from fedspect.model import build_network, load_base
from fedspect.protocol.versions import VersionCard
from fedspect.update.encoding import decode, encode, encoding_of
from fedspect.update.schema import Schema, version_of
from line_parts import Serving, run

PACKAGE = Path(__file__).parents[1] / "plugin_package"
triton = pytest.importorskip("tritonclient.grpc")
pytest.importorskip("setuptools")


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package as pip installs it, without a network; other processes find it by PYTHONPATH."""
    place = tmp_path_factory.mktemp("plugins")
    shutil.copytree(PACKAGE, place / "source")
    pip = ("-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index")
    subprocess.run(
        [sys.executable, *pip, "--disable-pip-version-check", "--target", place / "site", place / "source"],
        check=True,
        timeout=300,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place / "site"))
        patch.setenv("PYTHONPATH", os.pathsep.join(each for each in sys.path if each))
        yield place / "site"


def settings_of(pictures: Path, **more: Any) -> Any:
    given = {
        "data": pictures,
        "model": "tiny-net",
        "size": 64,
        "plants": 2,
        "partition": "iid",
        "rounds": 4,
        "local_epochs": 2,
        "threads": 1,
        "device": "cpu",
        "strategy": "fednesterov",
        "encoding": "sign",
    }
    assignments = (
        'training.views.augmentations=["side-light"]',
        "federation.strategy_options.momentum=0.4",
        "training.learning_rate=0.01",
    )
    return Overrides({**given, **more}, assignments=assignments).settings()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> RunResult:
    return start_run(tmp_path_factory.mktemp("runs") / "whole", settings_of(pictures), command="fedsim run")


class Cut(NoView):
    """Ctrl-C once two rounds are closed."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundClosed) and event.record.round == 2:
            raise KeyboardInterrupt


def test_a_strategy_with_state_goes_on_after_a_restart_to_the_same_model(
    whole: RunResult, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        start_run(tmp_path / "cut", settings_of(pictures), view=Cut(), command="fedsim run")
    assert resume_run(tmp_path / "cut").rounds == whole.rounds == 4
    hashes = [load_base(path / "model").content_hash for path in (whole.folder.path, tmp_path / "cut")]
    assert hashes[0] == hashes[1]
    assert load_base(tmp_path / "cut" / "model").card.architecture == "tiny-net"


def test_the_strategy_s_velocity_is_what_survives() -> None:
    one, other = build_aggregator("fednesterov"), build_aggregator("fednesterov")
    one.add("plant-1", 1.0, {"w": np.ones((2, 2), np.float32)})
    one.result(1)
    other.load_state_dict(one.state_dict())
    assert list(other.state_dict()) == ["velocity/w"]
    np.testing.assert_array_equal(other.state_dict()["velocity/w"], np.ones((2, 2), np.float32))


def test_the_encoding_names_itself_on_the_wire_and_checks_what_arrives() -> None:
    change = {"layer.weight": np.array([[1.0, -3.0]], np.float32), "layer.bias": np.array([2.0], np.float32)}
    blob = encode(change, encoding="sign")
    assert encoding_of(blob) == "sign"
    back = decode(blob, Schema.of(change))
    np.testing.assert_array_equal(back["layer.weight"], [[2.0, -2.0]])
    with pytest.raises(SettingsError, match="did you mean sign"):
        encode(change, encoding="sing")


def test_the_augmentation_changes_variants_and_nothing_else() -> None:
    import torch

    settings = ViewSettings(
        orientations=False, crops=False, light=False, contrast=False, noise=False, blur=False,
        augmentations=["side-light"],
    )  # fmt: skip
    image = torch.full((1, 32, 32), 200, dtype=torch.uint8)
    seen = apply_view(image, 9, "ab", settings)
    assert torch.equal(seen, apply_view(image, 9, "ab", settings)) and not torch.equal(seen, image)
    assert torch.equal(apply_view(image, 3, "ab", settings), image)
    assert settings.key != settings.model_copy(update={"augmentations": []}).key


def test_the_network_deploys_through_the_gate_and_answers_on_the_line(
    whole: RunResult, pictures: Path, tmp_path: Path
) -> None:
    home, deployer, version = plant_of(whole, pictures, tmp_path)
    report = deployer.deploy(version)
    assert (report.outcome, report.reasons) == ("activated", [])
    assert report.figures["agreement"]["logits_difference"] < 1e-4
    line = LineHome(home)
    picture = sorted(pictures.rglob("*.png"))[0]
    with Serving(line) as serving, triton.InferenceServerClient(serving.address) as client:
        given = triton.InferInput("picture", [1], "BYTES")
        given.set_data_from_numpy(np.array([picture.read_bytes()], dtype=object))
        answer = client.infer("surface", [given])
        probabilities = answer.as_numpy("probabilities")
    base = load_base(home / "base")
    model = open_model(deployer.deployments.current(), deployer.store)  # type: ignore[arg-type]
    wanted = model.answer(base.preprocessing.load(picture)[None]).probabilities
    model.close()
    np.testing.assert_allclose(np.asarray(probabilities).reshape(-1), wanted[0], atol=1e-5)

    done = run(line, "predict", str(picture), "--json", "--heat-map", str(tmp_path / "heat"))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["pictures"]
    assert Image.open(row["heat_map"]).size == (64, 64)


def test_the_engine_kind_is_built_gated_and_run(whole: RunResult, pictures: Path, tmp_path: Path) -> None:
    assert available_kinds() == ["onnxruntime", "onnx-reference"]
    _, deployer, version = plant_of(whole, pictures, tmp_path)
    report = deployer.deploy(version, overrides={"engine.kind": "onnx-reference"})
    assert (report.outcome, report.reasons) == ("activated", [])
    current = deployer.deployments.current()
    assert current is not None
    (engine,) = current.engines.values()
    stored = deployer.store.get(engine)
    assert (stored.key.kind, stored.file.name) == ("onnx-reference", "engine.bin")


def plant_of(whole: RunResult, pictures: Path, tmp_path: Path) -> tuple[Path, Deployer, Path]:
    """A plant that starts from the run's model, and a version that is the same model."""
    home = tmp_path / "home"
    shutil.copytree(whole.folder.path / "model", home / "base")
    base = load_base(home / "base")
    (home / "state").mkdir()
    settings = {
        "plant": "plant-1",
        "classes": list(CLASSES),
        "data": str(pictures),
        "base": str(home / "base"),
        "state": str(home / "state"),
        "cache": str(home / "cache"),
        "freeze_levels": 0,
        "training": {"threads": 1},
    }
    write_json(home / "worker.json", settings)
    write_text(home / "engines.toml", "[gate]\nruns = 3\nslower = 1000.0\nlowest_accuracy = 0.0\n")
    network = base.network(CLASSES, seed=0)
    head = head_of(network)
    content = {
        "number": 1,
        "content_hash": version_of(head),
        "base_hash": base.content_hash,
        "architecture": "tiny-net",
        "classes": list(CLASSES),
        "freeze_levels": 0,
        "run": "run-1",
        "rounds": 4,
        "created": "2026-01-01T00:00:00Z",
    }
    folder = home / "versions" / version_of(head)
    write_bytes(folder / "head.safetensors", safetensors.numpy.save(head))
    write_json(folder / "card.json", VersionCard.model_validate(content).model_dump())
    worker = WorkerSettings.read(home / "worker.json")
    return home, Deployer(worker, lambda: Site(worker)), folder


def test_names_that_nobody_registers_say_what_there_is() -> None:
    with pytest.raises(ModelError, match=r"tiny-net.*did you mean tiny-net"):
        build_network("tiny-ned", 3)
    with pytest.raises(SettingsError, match="side-light"):
        Overrides({}, assignments=('training.views.augmentations=["side-lite"]',)).settings()
    with pytest.raises(SettingsError, match="sign"):
        Overrides({"encoding": "sinn"}).settings()
