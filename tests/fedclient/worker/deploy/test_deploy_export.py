from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from deploy_networks import BASE_HASH, answer, distance, expected, facts, lively, pictures, preprocessing
from fedclient.worker.deploy import AUTHORS, CPU, deploy_graphs, form_named, form_names, save_graphs
from fedclient.worker.deploy.export import metadata_of
from fedspect.errors import InputSizeError, ModelError, SettingsError
from fedspect.model import build_network
from fedspect.model.base import default_base

REAL_DATA = Path(os.environ.get("FEDSPECT_DATA", str(Path(__file__).parents[5] / "shared" / "data")))
LIMIT = 1e-4


CASES = [("cdnv2-a", 1, form) for form in form_names()]
CASES += [("cdnv2-b", 3, "authors"), ("cdnv2-b", 3, "cpu"), ("cdnv2-c", 1, "cpu")]


@pytest.mark.parametrize(("architecture", "channels", "form"), CASES)
def test_every_form_of_every_model_answers_as_the_trained_network(
    architecture: str, channels: int, form: str
) -> None:
    network, prepared = lively(architecture, channels=channels), preprocessing(channels)
    graphs = deploy_graphs(network, facts(network, prepared), form=form_named(form))
    pixels = pictures(prepared)
    wanted = expected(network, prepared, pixels)
    assert graphs.backbone is not None and graphs.head is not None
    in_two = answer(graphs.head, answer(graphs.backbone, pixels))
    for seen in (answer(graphs.whole, pixels), in_two):
        assert distance(seen, wanted) < LIMIT
        assert (seen.argmax(1) == wanted.argmax(1)).all()


@pytest.mark.parametrize("form", ["authors", "cpu"])
def test_the_default_base_answers_as_it_was_trained(form: str) -> None:
    base = default_base()
    network = base.network(base.card.classes, seed=0)
    graphs = deploy_graphs(network, facts(network, base.preprocessing), form=form_named(form))
    pixels = pictures(base.preprocessing, 1)
    assert distance(answer(graphs.whole, pixels), expected(network, base.preprocessing, pixels)) < LIMIT


@pytest.mark.real_data
def test_neu_pictures_get_the_same_verdict() -> None:
    paths = sorted((REAL_DATA / "neu").rglob("*.*"))
    paths = [path for path in paths if path.suffix.lower() in (".jpg", ".bmp", ".png")]
    if not paths:
        pytest.skip("NEU's pictures are not beside the project")
    base = default_base()
    network, prepared = base.network(base.card.classes, seed=0), base.preprocessing
    pixels = np.stack([prepared.load(path) for path in paths[:: max(1, len(paths) // 12)]])
    graphs = deploy_graphs(network, facts(network, prepared))
    seen, wanted = answer(graphs.whole, pixels), expected(network, prepared, pixels)
    assert distance(seen, wanted) < LIMIT
    assert (seen.argmax(1) == wanted.argmax(1)).all()


@pytest.mark.parametrize("freeze_levels", [1, 3, 10, 11])
def test_the_cut_may_lie_anywhere(freeze_levels: int) -> None:
    network, prepared = lively(), preprocessing()
    graphs = deploy_graphs(network, facts(network, prepared), freeze_levels=freeze_levels)
    assert graphs.backbone is not None and graphs.head is not None
    pixels = pictures(prepared)
    seen = answer(graphs.head, answer(graphs.backbone, pixels))
    assert distance(seen, expected(network, prepared, pixels)) < LIMIT


def test_without_frozen_levels_there_is_only_the_whole() -> None:
    network, prepared = lively(), preprocessing()
    assert list(deploy_graphs(network, facts(network, prepared), freeze_levels=0).by_name()) == ["whole"]


@pytest.mark.parametrize("pixels", ["uint8", "float32", "normalised"])
def test_pixels_may_be_normalised_inside_or_outside(pixels: str) -> None:
    network, prepared = lively(channels=3), preprocessing(3)
    graphs = deploy_graphs(network, facts(network, prepared), pixels=pixels)
    raw = pictures(prepared)
    given = {
        "uint8": raw,
        "float32": raw.astype(np.float32),
        "normalised": prepared.normalise(raw),
    }[pixels]
    assert distance(answer(graphs.whole, given), expected(network, prepared, raw)) < LIMIT


def test_the_batch_is_free_and_grey_stays_one_channel() -> None:
    network, prepared = lively(), preprocessing()
    whole = deploy_graphs(network, facts(network, prepared)).whole
    (source,) = whole.graph.input
    assert [d.dim_param or d.dim_value for d in source.type.tensor_type.shape.dim] == ["batch", 1, 64, 64]
    for count in (1, 5):
        assert answer(whole, pictures(prepared, count)).shape == (count, 5)


def test_files_say_what_they_are() -> None:
    network, prepared = lively(), preprocessing()
    graphs = deploy_graphs(network, facts(network, prepared))
    for name, model in graphs.by_name().items():
        onnx.checker.check_model(model, full_check=True)
        assert [entry.version for entry in model.opset_import] == [17]
        said = metadata_of(model)
        assert said["part"] == name and said["version"] == "v1" and said["base_hash"] == BASE_HASH
        assert json.loads(said["normalisation"]) == {"mean": [0.5], "std": [0.25]}
        assert len(said["content_hash"]) == 64
        if name != "backbone":
            assert json.loads(said["classes"]) == [f"class-{place}" for place in range(5)]


def test_a_new_head_leaves_the_backbone_as_it_was(tmp_path: Path) -> None:
    network, prepared = lively(), preprocessing()
    before = deploy_graphs(network, facts(network, prepared, "v1"))
    with torch.no_grad():
        network.state_dict()["classifier.bias"].add_(1)
    after = deploy_graphs(network, facts(network, prepared, "v2"))

    def hashes(graphs: object) -> dict:  # type: ignore[type-arg]
        return {name: metadata_of(model)["content_hash"] for name, model in graphs.by_name().items()}  # type: ignore[attr-defined]

    old, new = hashes(before), hashes(after)
    assert old["backbone"] == new["backbone"]
    assert old["head"] != new["head"] and old["whole"] != new["whole"]


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    network, prepared = lively(), preprocessing()
    for folder in ("one", "two"):
        paths = save_graphs(tmp_path / folder, deploy_graphs(network, facts(network, prepared)))
        assert [path.name for path in paths] == ["whole.onnx", "backbone.onnx", "head.onnx"]
    for path in paths:
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()


def test_names_do_not_depend_on_the_weights() -> None:
    prepared = preprocessing()
    graphs = []
    for seed in (1, 2):
        network = build_network("cdnv2-a", 5, channels=1, form="condensed", seed=seed).eval()
        graphs.append(deploy_graphs(network, facts(network, prepared)).whole.graph)
    first, second = ([node.name for node in graph.node] for graph in graphs)
    assert first == second
    assert {"block1/layer1/reduce", "block5/layer8/joined", "hidden/linear"} <= set(first)
    assert len(set(first)) == len(first)


def test_hard_swish_comes_as_one_operator_or_in_parts() -> None:
    network, prepared = lively(), preprocessing()

    def operators(form: object) -> set:  # type: ignore[type-arg]
        graph = deploy_graphs(network, facts(network, prepared), form=form).whole.graph  # type: ignore[arg-type]
        return {node.op_type for node in graph.node}

    assert "HardSwish" in operators(CPU) and "HardSwish" not in operators(replace(CPU, hard_swish="parts"))
    assert "MatMul" in operators(AUTHORS) and not {"MatMul", "Transpose", "Reshape"} & operators(CPU)


def test_what_cannot_be_exported_is_refused_in_words() -> None:
    network, prepared = lively(), preprocessing()
    with pytest.raises(ModelError, match="classes"):
        deploy_graphs(network, replace(facts(network, prepared), classes=["one"]))
    with pytest.raises(InputSizeError):
        deploy_graphs(network, facts(network, preprocessing(3)))
    with pytest.raises(SettingsError, match="pixels"):
        deploy_graphs(network, facts(network, prepared), pixels="int4")
    with pytest.raises(SettingsError, match="form"):
        form_named("fastest")
