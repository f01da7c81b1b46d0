"""Writing nodes of an ONNX graph one after the other, under names that stay the same from export to export.

A node and its output carry one name, such as ``block4/layer2/reduce``; constants are named after the node that
reads them. Arrays arrive as float64 and are stored as float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 17
IR_VERSION = 8
"""What opset 17 came with; ONNX Runtime 1.19 and TensorRT 8.5 read it."""


@dataclass(frozen=True)
class Features:
    """A value in the graph: its name, channels, and height and width in pixels (0: a flat vector)."""

    name: str
    channels: int
    size: int


class Writer:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: List[onnx.NodeProto] = []
        self.constants: Dict[str, onnx.TensorProto] = {}
        self.declared: List[onnx.ValueInfoProto] = []

    def node(self, operator: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node; its output is called like the node itself."""
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        """Add a constant: floating point as float32, the rest as int64."""
        kind = np.float32 if np.issubdtype(values.dtype, np.floating) else np.int64
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values, dtype=kind), name)
        return name

    def conv(
        self,
        name: str,
        source: str,
        weight: np.ndarray,
        bias: Optional[np.ndarray] = None,
        *,
        groups: int = 1,
        stride: int = 1,
        pads: Sequence[int] = (0, 0, 0, 0),
    ) -> str:
        """Add a convolution; pads are top, left, bottom, right."""
        inputs = [source, self.constant(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{name}.bias", bias))
        return self.node(
            "Conv",
            name,
            inputs,
            group=groups,
            kernel_shape=list(weight.shape[2:]),
            strides=[stride, stride],
            pads=list(pads),
        )

    def declare(self, features: Features) -> None:
        """Say a value's shape where a runtime would not find out."""
        shape: List[Union[str, int, None]] = ["batch", features.channels, features.size, features.size]
        self.declared.append(helper.make_tensor_value_info(features.name, onnx.TensorProto.FLOAT, shape))

    def rename(self, old: str, new: str) -> None:
        """Call a node's output otherwise, wherever it is read."""
        for node in self.nodes:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    def model(
        self,
        name: str,
        source: onnx.ValueInfoProto,
        result: onnx.ValueInfoProto,
        metadata: Dict[str, str],
    ) -> onnx.ModelProto:
        """Everything as a model, checked by ONNX's own checker."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [source],
            [result],
            list(self.constants.values()),
            value_info=self.declared,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="fedspect",
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model
