from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Tuple

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from fedclient.worker.deploy import DeployFacts, deploy_graphs, save_graphs
from fedclient.worker.deployments import Deployment
from fedclient.worker.deployments.record import deployment_id
from fedclient.worker.engines import build_engine
from fedclient.worker.line.explain.class_activation import WEIGHTS, Explainer, class_gradient
from fedclient.worker.line.explain.overlay import centre_of, overlay
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.review.review_heat_maps import HeatMaps
from fedclient.worker.line.settings import LineSettings, write_settings
from fedspect.data.preprocess import Preprocessing
from fedspect.model.base import default_base
from line_parts import activate, copy_home, make_home, run

surfaces = pytest.importorskip("fedsim.synthetic.surfaces")
defects = pytest.importorskip("fedsim.synthetic.defects")
SIDE = 160
KIND = "patches"


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> LineHome:
    """A home that runs the default base model, which knows drawn surfaces."""
    base = default_base()
    home = LineHome(tmp_path_factory.mktemp("explained"))
    network = base.network(base.card.classes, seed=0).eval()
    prepared = Preprocessing(SIDE, 1, tuple(base.card.mean), tuple(base.card.std))
    facts = DeployFacts("cd" * 32, base.card.classes, prepared, base.content_hash)
    graphs = deploy_graphs(network, facts, freeze_levels=base.card.default_freeze_levels)
    save_graphs(home.folder / "onnx", graphs)
    engines = {
        part: build_engine(home.folder / "onnx" / f"{part}.onnx", home.store).id
        for part in ("backbone", "head")
    }
    deployment = Deployment(
        id=deployment_id(1, facts.version, engines),
        version=facts.version,
        number=1,
        classes=tuple(base.card.classes),
        base_hash=base.content_hash,
        engines=engines,
    )
    home.deployments.add(deployment)
    home.deployments.activate(deployment.id, who="a test", why="it says so")
    return home


def drawn(number: int) -> Tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (1, S, S) with a defect, and where the defect is, bool (S, S)."""
    from fedsim.synthetic.drawing import draw_picture

    def stream() -> np.random.Generator:
        return np.random.default_rng(
            int.from_bytes(hashlib.sha256(f"{number}".encode()).digest()[:8], "little")
        )

    picture = draw_picture(KIND, SIDE, stream())
    random = stream()
    surface = surfaces.draw_surface(SIDE, random)
    layer = defects.DEFECTS[KIND](SIDE, surface.angle, random)
    return picture[None], layer > 0.5


def explainer_of(home: LineHome) -> Tuple[Explainer, Tuple[str, ...]]:
    deployment = home.deployments.current()
    assert deployment is not None
    return Explainer(deployment, home.store), deployment.classes


def test_heat_lies_on_the_defect_better_than_chance(explained: LineHome) -> None:
    explainer, classes = explainer_of(explained)
    label = classes.index(f"synthetic/{KIND}")
    on_it, nearer = [], []
    masks = [drawn(number) for number in range(24)]
    for place, (picture, defect) in enumerate(masks):
        heat = explainer.heat(picture, label)
        assert heat.shape == (SIDE, SIDE) and heat.min() >= 0 and heat.max() <= 1
        other = masks[(place + 1) % len(masks)][1]
        on_it.append(heat[defect].sum() / heat.sum() - defect.mean())

        def distance(mask: np.ndarray, heat: np.ndarray = heat) -> float:
            return float(np.hypot(*np.subtract(centre_of(heat), centre_of(mask.astype(float)))))

        nearer.append(distance(other) - distance(defect))
    # a map that knows nothing has a share of its heat on the defect that is the defect's share of the picture
    assert np.mean(on_it) > 3 * np.std(on_it) / np.sqrt(len(on_it)) and np.mean(on_it) > 0.05
    assert np.mean(nearer) > 0


def test_the_gradient_is_that_of_the_trained_network(explained: LineHome) -> None:
    deployment = explained.deployments.current()
    assert deployment is not None
    stored = explained.store.get(deployment.engines["head"])
    model = onnx.load(str(stored.file))
    kept = {
        each.name: onnx.numpy_helper.to_array(each).astype(np.float64) for each in model.graph.initializer
    }
    weights = {
        name: kept[full][:, :, 0, 0] if kept[full].ndim == 4 else kept[full] for name, full in WEIGHTS.items()
    }
    means = np.abs(np.random.default_rng(0).normal(0, 0.4, weights["reduce"].shape[1]))
    tensors = {name: torch.from_numpy(values) for name, values in weights.items()}
    given = torch.from_numpy(means).requires_grad_()
    factors = torch.sigmoid(tensors["expand"] @ torch.relu(tensors["reduce"] @ given))
    hidden = tensors["hidden"] @ (given * factors) + tensors["hidden_bias"]
    (tensors["classifier"] @ torch.nn.functional.hardswish(hidden))[2].backward()
    assert given.grad is not None
    np.testing.assert_allclose(class_gradient(means, weights, 2), given.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_the_map_is_that_of_automatic_differentiation(explained: LineHome) -> None:
    simulated = pytest.importorskip("fedsim.heat_maps")
    explainer, classes = explainer_of(explained)
    base = default_base()
    network = base.network(base.card.classes, seed=0).eval()
    prepared = Preprocessing(SIDE, 1, tuple(base.card.mean), tuple(base.card.std))
    for number in range(3):
        picture, _ = drawn(number)
        label = classes.index(f"synthetic/{KIND}")
        images = torch.from_numpy(prepared.normalise(picture[None]))
        wanted = simulated.class_activation(network, images, torch.tensor([label]))[0]
        np.testing.assert_allclose(explainer.heat(picture, label), wanted, atol=2e-3)


def test_predict_writes_a_picture_beside_each_verdict(explained: LineHome, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(drawn(3)[0][0]).save(tmp_path / folder / "one.png")
    done = run(
        explained,
        "predict",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--json",
        "--heat-map",
        str(tmp_path / "heat"),
    )
    assert done.returncode == 0, done.stderr
    written = [Path(row["heat_map"]) for row in json.loads(done.stdout)["pictures"]]
    assert len(set(written)) == 2
    image = Image.open(written[0])
    assert image.size == (SIDE, SIDE) and image.mode == "RGB"
    colours = np.asarray(image, dtype=int)
    assert (colours[:, :, 0] - colours[:, :, 2]).max() > 60  # something glows


def test_no_heat_leaves_the_picture_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 8, 8), dtype=np.uint8)
    shown = np.asarray(overlay(picture, np.zeros((8, 8), np.float32)))
    np.testing.assert_array_equal(shown, np.repeat(picture.transpose(1, 2, 0), 3, axis=2))
    assert centre_of(np.zeros((5, 5))) == (2, 2)


@pytest.mark.parametrize("wanted", [True, False])
def test_an_asked_picture_has_its_heat_map_beside_it_where_that_is_wanted(
    explained: LineHome, tmp_path: Path, wanted: bool
) -> None:
    picture, _ = drawn(1)
    folder = tmp_path / "camera"
    folder.mkdir()
    Image.fromarray(picture[0]).save(folder / "1.png")
    settings = {"verdicts": {"sure": 1.0}, "review": {"heat_maps": wanted}}
    home = copy_home(explained, tmp_path / "home")
    write_settings(home.line, LineSettings.model_validate(settings))
    assert run(home, "watch", str(folder), "--once", "--settle", "0", "--every", "0.05").returncode == 0
    (row,) = json.loads(run(home, "review", "list", "--json").stdout)
    assert (row["heat_map"] is not None) is wanted
    if wanted:
        assert Image.open(row["heat_map"]).size == (SIDE, SIDE)
    assert run(home, "review", "discard", row["name"]).returncode == 0
    assert not [path for path in home.review.rglob("*") if path.is_file()]


def test_an_engine_that_is_gone_is_named_once_and_the_picture_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = make_home(tmp_path / "home")  # engines that judge brightness
    maps = HeatMaps(home.store)
    deployment = activate(home, 1)
    model = home.open_current()
    maps.turn_to(deployment)
    shutil.rmtree(home.store.folder / deployment.engines["head"])
    for number in range(2):
        maps.draw(tmp_path / f"{number}.png", model, np.zeros((1, 16, 16), np.uint8), "dark")
    assert not list(tmp_path.glob("*.png")) and len(caplog.messages) == 1
    assert "without heat maps" in caplog.text
