"""Class activation maps: where in the picture a verdict comes from.

Grad-CAM (Selvaraju et al., 2017) for CondenseNetV2. Behind the last map the network is a mean over the picture, an
excitation, a hidden layer and the classifier, so the gradient of a class at the map is the same for every pixel and
is written out here: the map's channels weighted by it, and only what speaks for the class. The map is made an
output of the deploy graph's ONNX, whose stable names tell which node and weights these are. Graphs of other networks
have no such names: they get ``ablation_cam`` or, without a global pool,
``occlusion``.

Shapes: C channels of the last map, R channels inside the excitation, F of the hidden layer, K classes.
"""

from __future__ import annotations

from typing import Dict, Optional

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fedclient.worker.deployments import Deployment
from fedclient.worker.engines import EngineStore
from fedclient.worker.line.explain.ablation_cam import ablation_cam, joined, pooled_map
from fedclient.worker.line.explain.occlusion import occlusion
from fedclient.worker.line.explain.overlay import enlarged
from fedspect.errors import EngineError

PARTS = ("backbone", "head", "whole")
MAP = "block5/activation"
WEIGHTS = {
    "reduce": "block5/excitation/reduce.weight",
    "expand": "block5/excitation/expand.weight",
    "hidden": "hidden/linear.weight",
    "hidden_bias": "hidden/linear.bias",
    "classifier": "classifier.weight",
}


class Explainer:
    """The heat maps of one deployment.

    Attributes:
        method: "class activation" or "occlusion".

    """

    def __init__(self, deployment: Deployment, store: EngineStore) -> None:
        """Open the deployment's graphs.

        Raises:
            EngineError: an engine is not kept as ONNX, or its graph does not open.

        """
        graph = joined(
            [_graph(store, deployment.engines[part]) for part in PARTS if part in deployment.engines]
        )
        self.method = "class activation"
        self._weights = _weights(graph)
        cut = pooled_map(graph) if self._weights is None else None
        if self._weights is not None:
            graph.graph.output.append(helper.make_tensor_value_info(_map_of(graph), TensorProto.FLOAT, None))
        elif cut is None:
            self.method = "occlusion"
        self._session = _session(cut.trunk if cut else graph)
        self._tail = (_session(cut.tail), cut.pooled) if cut else None

    def heat(self, pixels: np.ndarray, label: int) -> np.ndarray:
        """What speaks for class number ``label``: uint8 (C, S, S) -> float32 (S, S), 0 to 1.

        Raises:
            EngineError: the graph does not answer.

        """
        try:
            return enlarged(self._map(pixels, label), pixels.shape[2])
        except Exception as error:  # ONNX Runtime has many exception classes and no common one
            raise EngineError("the heat map's graph does not answer", seen=str(error)[:300]) from error

    def _map(self, pixels: np.ndarray, label: int) -> np.ndarray:
        if self.method == "occlusion":
            return occlusion(pixels, lambda batch: _run(self._session, batch), label)
        activation = _run(self._session, pixels[None])[0]
        if self._tail is not None:
            tail, pooled = self._tail
            return ablation_cam(activation, lambda means: _run(tail, means.reshape(-1, *pooled)), label)
        assert self._weights is not None
        gradient = class_gradient(activation.mean(axis=(1, 2), dtype=np.float64), self._weights, label)
        return np.maximum(np.tensordot(gradient, activation, axes=1), 0).astype(np.float32)


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


def _graph(store: EngineStore, engine: str) -> onnx.ModelProto:
    stored = store.get(engine)
    if stored.key.kind != "onnxruntime":
        raise EngineError(
            "a heat map needs the deploy graph, and this engine holds none",
            seen=stored.id,
            accepted="engines of the kind onnxruntime",
        )
    return onnx.load(str(stored.file))


def _weights(model: onnx.ModelProto) -> Optional[Dict[str, np.ndarray]]:
    """What the gradient is made of, from a hand-written graph; None for any other."""
    found = {tensor.name.split("head/")[-1]: tensor for tensor in model.graph.initializer}
    if not _map_of(model) or not set(WEIGHTS.values()) <= set(found):
        return None
    weights = {}
    for name, stored in WEIGHTS.items():
        values = numpy_helper.to_array(found[stored]).astype(np.float64)
        weights[name] = values[:, :, 0, 0] if values.ndim == 4 else values
    return weights


def _map_of(model: onnx.ModelProto) -> str:
    """The last map's name in a hand-written graph, or nothing."""
    outputs = (name for node in model.graph.node for name in node.output)
    return next((name for name in outputs if name.split("head/")[-1] == MAP), "")


def _run(session: onnxruntime.InferenceSession, values: np.ndarray) -> np.ndarray:
    """The last output for the only input."""
    answers = session.run([session.get_outputs()[-1].name], {session.get_inputs()[0].name: values})
    return np.asarray(answers[0])


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
