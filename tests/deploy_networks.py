"""Networks with lively norms, and running an ONNX model as it is written."""

from __future__ import annotations

from typing import Optional

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from fedclient.worker.deploy import DeployFacts
from fedspect.data.preprocess import Preprocessing
from fedspect.model import build_network
from fedspect.model.levels import LevelledNetwork

BASE_HASH = "ab" * 32


def lively(architecture: str = "cdnv2-a", *, channels: int = 1, form: str = "condensed") -> LevelledNetwork:
    """A network whose norms do something, and whose gathered copies have norms of their own."""
    network = build_network(architecture, 5, channels=channels, form=form, seed=3)
    numbers = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=numbers)
            module.running_var.uniform_(0.5, 1.5, generator=numbers)
            module.weight.data.uniform_(0.5, 1.5, generator=numbers)
            module.bias.data.normal_(0, 0.3, generator=numbers)
    return network.eval()


def preprocessing(channels: int = 1, size: int = 64) -> Preprocessing:
    """Another mean and std for each channel."""
    return Preprocessing(size, channels, (0.5, 0.45, 0.4)[:channels], (0.25, 0.22, 0.2)[:channels])


def facts(network: LevelledNetwork, prepared: Preprocessing, version: str = "v1") -> DeployFacts:
    """Facts that fit the network."""
    classes = [f"class-{place}" for place in range(network.num_classes)]
    return DeployFacts(version, classes, prepared, BASE_HASH)


def pictures(prepared: Preprocessing, count: int = 2) -> np.ndarray:
    """Random pixels: uint8 (N, C, H, W)."""
    shape = (count, prepared.channels, prepared.size, prepared.size)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def expected(network: LevelledNetwork, prepared: Preprocessing, pixels: np.ndarray) -> np.ndarray:
    """The network's own logits (N, K)."""
    with torch.no_grad():
        return np.asarray(network.eval()(torch.from_numpy(prepared.normalise(pixels))).numpy())


def answer(model: onnx.ModelProto, values: np.ndarray, *, optimised: Optional[bool] = True) -> np.ndarray:
    """What ONNX Runtime makes of the only input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {session.get_inputs()[0].name: values})[0])


def distance(seen: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, relative to the scale of what is wanted."""
    return float(np.abs(seen - wanted).max() / np.abs(wanted).max())
