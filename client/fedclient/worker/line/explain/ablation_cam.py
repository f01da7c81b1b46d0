"""Ablation-CAM (Desai and Ramaswamy, 2020): class activation of a graph whose names say nothing, without gradients.

If all that the logits know of the picture comes through one global average pool, that pool's input is the last feature
map. A channel weighs what the class's logit loses, per unit, when the channel's mean is set to zero. With a linear
head this is the head's weight (CAM, Zhou et al., 2016); with layers between, it is the slope of a secant where Grad-CAM
takes the tangent.

Shapes: C channels of the map (h, w), K classes.
"""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, shape_inference

TINY = 1e-6
POOLS = ("GlobalAveragePool", "AveragePool", "ReduceMean")


class PooledMap(NamedTuple):
    """A graph cut at the global pool behind its last feature map."""

    trunk: onnx.ModelProto
    """Pixels -> the map (1, C, h, w), its only output."""
    tail: onnx.ModelProto
    """The map's means (N, C, 1, 1) or (N, C) -> logits (N, K)."""
    pooled: Tuple[int, ...]
    """The shape of the means without the batch."""


def joined(parts: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """The whole graph of a backbone and a head; a whole as it is."""
    for part in parts:
        del part.metadata_props[:]
    if len(parts) == 1:
        return parts[0]
    backbone, head = parts
    ends = [(backbone.graph.output[0].name, head.graph.input[0].name)]
    return compose.merge_models(backbone, head, io_map=ends, prefix1="backbone/", prefix2="head/")


def pooled_map(model: onnx.ModelProto) -> Optional[PooledMap]:
    """The graph at its last global average pool; None if the logits know of the picture by another way too."""
    inferred = shape_inference.infer_shapes(model)
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*inferred.graph.value_info, *model.graph.output)
    }
    by_output = {name: node for node in model.graph.node for name in node.output}
    for node in reversed(model.graph.node):
        given, answered = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
        is_pool = node.op_type in POOLS and len(given) == 4 and answered[1:2] == given[1:2] and given[1] > 0
        if not is_pool or given[2] * given[3] <= 1 or int(np.prod(answered[2:])) != 1:
            continue
        tail = _tail(model, by_output, node.output[0])
        if tail is not None:
            trunk = onnx.ModelProto()
            trunk.CopyFrom(model)
            del trunk.graph.output[:]
            trunk.graph.output.append(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None))
            source = helper.make_tensor_value_info(
                node.output[0], TensorProto.FLOAT, ["batch", *answered[1:]]
            )
            return PooledMap(trunk, _model(model, tail, source), tuple(answered[1:]))
    return None


def ablation_cam(
    activation: np.ndarray, answer: Callable[[np.ndarray], np.ndarray], label: int
) -> np.ndarray:
    """What speaks for a class in a map (C, h, w): (h, w), 0 or above. ``answer``: means (N, C) -> logits (N, K)."""
    means = activation.mean(axis=(1, 2), dtype=np.float64)
    without = np.repeat(means[None], len(means) + 1, axis=0).astype(np.float32)
    without[np.arange(1, len(means) + 1), np.arange(len(means))] = 0
    logits = answer(without)[:, label].astype(np.float64)
    slopes = np.where(np.abs(means) > TINY, (logits[0] - logits[1:]) / np.where(means == 0, 1, means), 0)
    return np.maximum(np.tensordot(slopes, activation, axes=1), 0).astype(np.float32)


def _tail(
    model: onnx.ModelProto, by_output: Dict[str, onnx.NodeProto], pooled: str
) -> Optional[List[onnx.NodeProto]]:
    """The nodes between ``pooled`` and the logits, in order; None if one of them looks at anything before it."""
    wanted, seen = [model.graph.output[0].name], set()
    while wanted:
        name = wanted.pop()
        if name == pooled or name in seen:
            continue
        seen.add(name)
        if name == model.graph.input[0].name:
            return None
        if name in by_output:
            wanted.extend(each for each in by_output[name].input if each)
    return [node for node in model.graph.node if seen & set(node.output)]


def _model(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], source: onnx.ValueInfoProto
) -> onnx.ModelProto:
    read = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, "tail", [source], [model.graph.output[0]], constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
