"""Conversion of a float32 graph to float16, for runtimes that take the precision from the graph itself.

Inputs and outputs keep their types, and pixels are normalised in float32, so the engine's edges are the same in
both precisions. Only for graphs of ours: their constants are initializers, and all of them are float32 or
indices.
"""

from __future__ import annotations

from typing import Dict, List, Set

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fedspect.errors import EngineError

LARGEST = 65504.0  # float16's largest number
KEPT_FLOAT: Dict[str, Set[int]] = {"Resize": {1, 2}}
"""Inputs of an operator that are float32 whatever it computes in."""
PIXELS = "pixels/"  # nodes that normalise pixels


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function in float16.

    Raises:
        EngineError: a weight is too large for float16.

    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    outside = [node for node in graph.node if node.name.startswith(PIXELS)]
    inside = [node for node in graph.node if not node.name.startswith(PIXELS)]
    made: Set[str] = {graph.input[0].name} | {name for node in outside for name in node.output}
    nodes: List[onnx.NodeProto] = list(outside)
    converted: Set[str] = set()
    halved: Set[str] = set()
    result = graph.output[0].name
    for node in inside:
        for place, name in enumerate(node.input):
            if place in KEPT_FLOAT.get(node.op_type, ()):
                continue
            if name in made:  # float32 from outside
                if name not in converted:
                    nodes.append(_cast(name, f"half/{name}", TensorProto.FLOAT16))
                    converted.add(name)
                node.input[place] = f"half/{name}"
            elif name in constants:
                halved.add(name)
        for place, name in enumerate(node.input):
            if name == result:
                node.input[place] = f"half/{result}"
        for place, name in enumerate(node.output):
            if name == result:
                node.output[place] = f"half/{result}"
        nodes.append(node)
    nodes.append(_cast(f"half/{result}", result, TensorProto.FLOAT))
    for name in halved:
        constants[name].CopyFrom(_halved(constants[name]))
    for value in graph.value_info:  # only what lies inside is declared
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(half)
    return half


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=kind)


def _halved(tensor: onnx.TensorProto) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    most = float(np.abs(values).max(initial=0.0))
    if most > LARGEST:
        raise EngineError(
            "a weight is too large for float16",
            seen=f"{tensor.name}: {most:g}",
            accepted=f"up to {LARGEST:g}",
            remedy="fedclient engines build --precision float32; for good: `precision` in engines.toml",
        )
    return numpy_helper.from_array(values.astype(np.float16), tensor.name)
