"""Networks without a hand-written graph answer through ONNX as they were trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Tuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy_networks import answer, distance, expected, facts, lively, pictures, preprocessing
from fedclient.worker.deploy import TORCH, deploy_graphs, save_graphs
from fedclient.worker.deploy.torch_export import AveragedCells
from fedclient.worker.onnx_metadata import metadata_of, read_onnx
from fedspect.errors import ModelError
from fedspect.model.levels import LevelledNetwork

PEERS = ["mobilenet-v3-small", "resnet18", "plain-cnn", "squeezenet1-1", "shufflenet-v2-x0-5"]


def peer(architecture: str, channels: int = 1) -> LevelledNetwork:
    network = lively(architecture, channels=channels, form="learned")
    network.default_freeze_levels = min(4, len(network.levels()) - 1)
    return network


@pytest.mark.parametrize("architecture", PEERS)
def test_a_network_in_two_parts_answers_as_it_was_trained(architecture: str) -> None:
    network, prepared = peer(architecture), preprocessing(size=96)
    graphs = deploy_graphs(network, facts(network, prepared))
    for count in (1, 3):
        pixels = pictures(prepared, count)
        wanted = expected(network, prepared, pixels)
        assert distance(answer(graphs.whole, pixels), wanted) < 1e-4
        if graphs.backbone is not None and graphs.head is not None:
            in_two = answer(graphs.head, answer(graphs.backbone, pixels))
            assert distance(in_two, wanted) < 1e-4
    assert (graphs.head is None) == (len(network.levels()) == 1)


@pytest.mark.parametrize("kind", ["uint8", "float32", "normalised"])
def test_colour_and_any_kind_of_pixels(kind: str) -> None:
    network, prepared = peer("plain-cnn", 3), preprocessing(3)
    graphs = deploy_graphs(network, facts(network, prepared), pixels=kind)
    pixels = pictures(prepared)
    given = prepared.normalise(pixels) if kind == "normalised" else pixels.astype(kind)
    assert distance(answer(graphs.whole, given), expected(network, prepared, pixels)) < 1e-4


def test_the_hand_written_graph_computes_what_torch_exports() -> None:
    network, prepared = lively(), preprocessing()
    pixels = pictures(prepared)
    by_hand = deploy_graphs(network, facts(network, prepared)).whole
    by_torch = deploy_graphs(network, facts(network, prepared), form=TORCH).whole
    assert metadata_of(by_torch)["form"] == "torch"
    assert distance(answer(by_hand, pixels), answer(by_torch, pixels)) < 1e-4


def test_a_file_passes_the_engines_checks_and_says_what_it_is(tmp_path: Path) -> None:
    network, prepared = peer("mobilenet-v3-small"), preprocessing(size=96)
    for path in save_graphs(tmp_path, deploy_graphs(network, facts(network, prepared))):
        file = read_onnx(path)
        assert (file.metadata["part"], file.metadata["form"]) == (path.stem, "torch")
        assert [each.version for each in file.model.opset_import] == [17] and file.model.ir_version == 8
        if path.stem != "backbone":
            assert len(json.loads(file.metadata["classes"])) == 5


def test_a_new_head_leaves_the_backbone_as_it_was_and_the_same_weights_give_the_same_bytes() -> None:
    network, prepared = peer("resnet18"), preprocessing()
    first, again = (deploy_graphs(network, facts(network, prepared, "v1")).by_name() for _ in range(2))
    assert all(first[part].SerializeToString() == again[part].SerializeToString() for part in first)
    with torch.no_grad():
        network.state_dict()["classifier.bias"].add_(1)
    after = deploy_graphs(network, facts(network, prepared, "v2")).by_name()
    same = {
        part: metadata_of(first[part])["content_hash"] == metadata_of(after[part])["content_hash"]
        for part in first
    }
    assert same == {"whole": False, "backbone": True, "head": False}


def test_export_leaves_the_network_as_it_was() -> None:
    network, prepared = peer("plain-cnn"), preprocessing()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    deploy_graphs(network, facts(network, prepared))
    assert network.training and isinstance(dict(network.named_modules())["hidden.pool"], nn.AdaptiveAvgPool2d)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("given", "wanted"), [((7, 7), (4, 4)), ((5, 9), (3, 2)), ((3, 3), (5, 5)), ((6, 6), (1, 1))]
)
def test_cells_of_unlike_size_are_torch_s_own(given: Tuple[int, int], wanted: Tuple[int, int]) -> None:
    features = torch.rand(2, 3, *given)
    np.testing.assert_allclose(
        AveragedCells(given, wanted)(features), nn.AdaptiveAvgPool2d(wanted)(features), rtol=1e-5, atol=1e-6
    )


class _Unknown(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.svdvals(images).flatten(1)[:, :5]


def test_an_operator_that_onnx_has_not_is_named() -> None:
    network = LevelledNetwork(
        [("whole", _Unknown())],
        architecture="odd",
        form="plain",
        num_classes=5,
        channels=1,
        minimum_size=16,
        default_freeze_levels=0,
    )
    with pytest.raises(ModelError, match=r"odd cannot be written as ONNX.*svd"):
        deploy_graphs(network, facts(network, preprocessing()))
