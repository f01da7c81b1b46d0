"""Where a verdict comes from: the class activation of the last feature map, as a picture over the picture.

Grad-CAM (Selvaraju et al., 2017) for our head. Behind the last map the network is a mean over the picture, an
excitation, a hidden layer and the classifier, so the gradient of a class at the map is the same for every pixel and
is written out here: the map's channels weighted by it, and only what speaks for the class. The map is made an
output of the deploy graph's ONNX, whose stable names tell which node and weights these are.

Shapes: C channels of the last map, R channels inside the excitation, F of the hidden layer, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fedclient.worker.deployments import Deployment
from fedclient.worker.engines import EngineStore
from fedclient.worker.line.explain.overlay import enlarged
from fedspect.errors import EngineError

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
        return enlarged(heat, pixels.shape[2])


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
