from __future__ import annotations

from typing import List, Optional

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from deploy_networks import answer, facts, lively, pictures, preprocessing
from fedclient.worker.deploy import deploy_graphs
from fedclient.worker.line.explain.ablation_cam import ablation_cam, joined, pooled_map
from fedclient.worker.line.explain.occlusion import occlusion
from fedclient.worker.line.explain.overlay import centre_of, enlarged

simulated = pytest.importorskip("fedsim.heat_maps")


def parts_of(architecture: str, cut: Optional[int] = None, size: int = 96) -> List[onnx.ModelProto]:
    network, prepared = lively(architecture, form="learned"), preprocessing(size=size)
    graphs = deploy_graphs(network, facts(network, prepared), freeze_levels=cut)
    return (
        [graphs.whole]
        if cut is None
        else [each for each in (graphs.backbone, graphs.head) if each is not None]
    )


def outputs(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: values})[0])


@pytest.mark.parametrize(
    ("architecture", "cut"), [("resnet18", 3), ("resnet18", 6), ("mobilenet-v3-small", 9)]
)
def test_the_map_is_near_that_of_automatic_differentiation(architecture: str, cut: int) -> None:
    cut_map = pooled_map(joined(parts_of(architecture, cut)))
    assert cut_map is not None
    network, prepared = lively(architecture, form="learned"), preprocessing(size=96)
    pixels = pictures(prepared, 1)
    activation = outputs(cut_map.trunk, pixels)[0]
    images = torch.from_numpy(prepared.normalise(pixels))
    maps = [simulated.class_activation(network, images, torch.tensor([label]))[0] for label in range(5)]
    for label in [each for each in range(5) if maps[each].max() > 0]:
        seen = ablation_cam(
            activation, lambda means: outputs(cut_map.tail, means.reshape(-1, *cut_map.pooled)), label
        )
        wanted = maps[label]
        if architecture == "resnet18":  # a linear head: weights, not slopes
            np.testing.assert_allclose(enlarged(seen, 96), wanted, atol=2e-3)
        else:
            assert np.corrcoef(enlarged(seen, 96).ravel(), wanted.ravel())[0, 1] > 0.8


def test_a_network_without_a_global_pool_has_no_such_map() -> None:
    assert pooled_map(joined(parts_of("plain-cnn"))) is None


def test_the_inner_pools_of_squeeze_and_excitation_are_not_taken_for_the_last_one() -> None:
    cut_map = pooled_map(joined(parts_of("mobilenet-v3-small")))
    assert cut_map is not None and cut_map.pooled[0] == 576
    prepared = preprocessing(size=96)
    pixels = pictures(prepared)
    means = outputs(cut_map.trunk, pixels).mean(axis=(2, 3)).reshape(-1, *cut_map.pooled)
    np.testing.assert_allclose(
        outputs(cut_map.tail, means), answer(parts_of("mobilenet-v3-small")[0], pixels), rtol=1e-3, atol=1e-4
    )


def test_occlusion_is_hottest_where_the_answer_comes_from() -> None:
    pixels = np.random.default_rng(0).integers(100, 110, (1, 64, 64), dtype=np.uint8)
    pixels[:, 40:48, 8:16] = 250

    def brightest(batch: np.ndarray) -> np.ndarray:
        top = batch.reshape(len(batch), -1).max(axis=1).astype(np.float32)
        return np.stack([np.full_like(top, 180), top], axis=1) / 10

    heat = enlarged(occlusion(pixels, brightest, 1), 64)
    row, column = centre_of(heat)
    assert abs(row - 44) < 6 and abs(column - 12) < 6
    assert occlusion(pixels, brightest, 0).max() == 0  # nothing speaks for the other class
