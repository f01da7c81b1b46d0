from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from fedclient.worker.deploy.export import DeployFacts, deploy_graphs
from fedclient.worker.deploy.forms import form_named, form_names
from fedclient.worker.onnx_metadata import metadata_of
from fedspect.data.preprocess import Preprocessing
from fedspect.model.levels import LevelledNetwork, freeze, load_head_state
from fedspect.model.network import build_network

SIZE = 64
PREPROCESSING = Preprocessing(size=SIZE, channels=1, mean=(0.5,), std=(0.25,))


@pytest.fixture(params=[True, False], ids=["alone", "with-residual"])
def network(request: pytest.FixtureRequest) -> LevelledNetwork:
    built = build_network("cdnv2-a", 3, channels=1, form="condensed", seed=1)
    generator = torch.Generator().manual_seed(4)
    freeze(built, 8)
    kept = built.classifier.weight.clone()  # type: ignore[union-attr]
    built.attach_discriminant(SIZE)
    discriminant = built.discriminant
    assert discriminant is not None
    count = discriminant.whitening.in_features
    load_head_state(
        built,
        {
            "discriminant.whitening.weight": torch.randn(count, count, generator=generator).tril() / 30,
            "discriminant.whitening.bias": torch.randn(count, generator=generator),
            "discriminant.means.weight": torch.randn(3, count, generator=generator),
            "discriminant.means.bias": torch.randn(3, generator=generator),
            "discriminant.sharpness": torch.tensor([0.05]),
            "discriminant.limit": torch.tensor([123.5]),
        },
    )
    if not request.param:
        with torch.no_grad():
            built.classifier.weight.copy_(kept)  # type: ignore[operator, union-attr]
    return built.eval()


def run(model, batch: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])


@pytest.mark.parametrize("form", form_names())
def test_whole_and_parts_answer_logits_and_distance_as_the_network(
    network: LevelledNetwork, form: str
) -> None:
    graphs = deploy_graphs(
        network, DeployFacts("v", ["a", "b", "c"], PREPROCESSING, "0" * 64), form=form_named(form)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, SIZE, SIZE)).astype(np.uint8)
    whole = run(graphs.whole, pixels)
    assert graphs.backbone is not None and graphs.head is not None
    parts = run(graphs.head, run(graphs.backbone, pixels))
    with torch.no_grad():
        logits = network(torch.from_numpy(PREPROCESSING.normalise(pixels))).numpy()
    assert whole.shape == (2, 4)
    np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(whole[:, :3], logits, rtol=1e-3, atol=1e-2)
    assert (whole[:, 3] >= 0).all() and whole[:, 3].max() > 0


def test_a_closed_form_alone_needs_nothing_behind_its_taps(network: LevelledNetwork) -> None:
    graphs = deploy_graphs(network, DeployFacts("v", ["a", "b", "c"], PREPROCESSING, "0" * 64))
    names = {node.name for node in graphs.whole.graph.node}
    assert ("hidden/linear" in names) == network.trains_residual()
    assert graphs.head is not None
    assert metadata_of(graphs.head)["limit"] == "123.5"
    assert metadata_of(graphs.head)["taps"] == "832"
