"""Where a verdict comes from: the class activation of the last feature map, as a picture over the picture.

Grad-CAM (Selvaraju et al., 2017) for our head. Behind the last map the network is a mean over the picture, an
excitation, a hidden layer and the classifier, so the gradient of a class at the map is the same for every pixel and
is written out here: the map's channels weighted by it, and only what speaks for the class. The map is made an
output of the deploy graph's ONNX, whose stable names tell which node and weights these are.

Shapes: C channels of the last map, R channels inside the excitation, F of the hidden layer, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Tuple

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fedclient.worker.deployments import Deployment
from fedclient.worker.engines import EngineStore
from fedspect.errors import EngineError
from fedspect.files import replacing

MAP = "block5/activation"
WEIGHTS = {
    "reduce": "block5/excitation/reduce.weight",
    "expand": "block5/excitation/expand.weight",
    "hidden": "hidden/linear.weight",
    "hidden_bias": "hidden/linear.bias",
    "classifier": "classifier.weight",
}


class Explainer:
    """The heat maps of one deployment."""

    def __init__(self, deployment: Deployment, store: EngineStore) -> None:
        """Open the deployment's graphs with the last map as an output.

        Raises:
            EngineError: an engine is not kept as ONNX, or its graph has no such map.

        """
        self._sessions = []
        for part in ("backbone", "head", "whole"):
            if part not in deployment.engines:
                continue
            stored = store.get(deployment.engines[part])
            if stored.key.kind != "onnxruntime":
                raise EngineError(
                    "a heat map needs the deploy graph, and this engine holds none",
                    seen=stored.id,
                    accepted="engines of the kind onnxruntime",
                )
            model = onnx.load(str(stored.file))
            if part != "backbone":
                self._weights = _weights(model, stored.file)
                model.graph.output.append(helper.make_tensor_value_info(MAP, TensorProto.FLOAT, None))
            self._sessions.append(_session(model))

    def heat(self, pixels: np.ndarray, label: int) -> np.ndarray:
        """What speaks for class number ``label``: uint8 (C, S, S) -> float32 (S, S), 0 to 1.

        Raises:
            EngineError: the graph does not answer.

        """
        values = pixels[None]
        try:
            for session in self._sessions[:-1]:
                values = session.run(None, {session.get_inputs()[0].name: values})[0]
            last = self._sessions[-1]
            activation = last.run([MAP], {last.get_inputs()[0].name: values})[0][0]
        except Exception as error:  # ONNX Runtime has many exception classes and no common one
            raise EngineError("the heat map's graph does not answer", seen=str(error)[:300]) from error
        gradient = class_gradient(activation.mean(axis=(1, 2), dtype=np.float64), self._weights, label)
        heat = np.maximum(np.tensordot(gradient, activation, axes=1), 0).astype(np.float32)
        top = float(heat.max())
        scaled = heat / top if top > 0 else heat
        size = (pixels.shape[2], pixels.shape[1])
        enlarged = Image.fromarray(scaled).resize(size, Image.Resampling.BICUBIC)
        return np.clip(np.asarray(enlarged, dtype=np.float32), 0, 1)


def class_gradient(means: np.ndarray, weights: Dict[str, np.ndarray], label: int) -> np.ndarray:
    """The gradient of a class's logit at the channels' means: (C) -> (C)."""
    inner = weights["reduce"] @ means
    factors = 1 / (1 + np.exp(-(weights["expand"] @ np.maximum(inner, 0))))
    hidden = weights["hidden"] @ (means * factors) + weights["hidden_bias"]
    # hard-swish x * clip(x + 3, 0, 6) / 6: slope 0, (2 x + 3) / 6 or 1
    slope = np.where(hidden <= -3, 0.0, np.where(hidden >= 3, 1.0, (2 * hidden + 3) / 6))
    at_excited = weights["hidden"].T @ (weights["classifier"][label] * slope)
    at_factors = at_excited * means * factors * (1 - factors)
    through = weights["reduce"].T @ ((weights["expand"].T @ at_factors) * (inner > 0))
    return np.asarray(at_excited * factors + through)


def overlay(picture: np.ndarray, heat: np.ndarray) -> Image.Image:
    """The picture, uint8 (C, S, S), with heat (S, S) over it: nothing, then yellow, then red."""
    shown = picture.transpose(1, 2, 0)
    shown = np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown
    colour = np.stack([np.full_like(heat, 255), 220 * (1 - heat), np.zeros_like(heat)], axis=2)
    strength = (0.6 * heat)[:, :, None]
    return Image.fromarray(np.rint(shown * (1 - strength) + colour * strength).astype(np.uint8))


def save_overlay(path: Path, picture: np.ndarray, heat: np.ndarray) -> None:
    """Write the overlay as PNG; raises ``StorageError``."""
    with replacing(path) as file:
        overlay(picture, heat).save(file, format="PNG")


def centre_of(heat: np.ndarray) -> Tuple[float, float]:
    """The centre of mass (row, column) of a map; its middle where it is empty."""
    total = float(heat.sum())
    rows, columns = np.indices(heat.shape)
    if total <= 0:
        return (heat.shape[0] - 1) / 2, (heat.shape[1] - 1) / 2
    return float((heat * rows).sum() / total), float((heat * columns).sum() / total)


def _weights(model: onnx.ModelProto, file: Path) -> Dict[str, np.ndarray]:
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    if not any(MAP in node.output for node in model.graph.node) or not set(WEIGHTS.values()) <= set(found):
        raise EngineError(
            "this model has no map to show",
            seen=file,
            accepted="a deploy graph of CondenseNetV2",
            remedy="predict without --heat-map",
        )
    weights = {}
    for name, stored in WEIGHTS.items():
        values = numpy_helper.to_array(found[stored]).astype(np.float64)
        weights[name] = values[:, :, 0, 0] if values.ndim == 4 else values
    return weights


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise EngineError("the heat map's graph does not open", seen=str(error)[:300]) from error
