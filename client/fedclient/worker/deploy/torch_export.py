"""ONNX export of any network by ``torch.onnx``: what is written for networks that have no hand-written graph.

The TorchScript exporter (``dynamo=False``) is used on purpose: it keeps to the opset that is asked for, and TensorRT
8.5 reads 17 at most; the newer exporter starts at 18. It is in torch 2.1 and in 2.15. Two things are done around it:

* An adaptive average pool whose cells are not of one size has no ONNX operator; at a fixed picture size it is two
  matrix products (``AveragedCells``).
* Values are renamed in the order of the nodes and constants become initializers, so that the same weights give the
  same bytes and the file passes the same checks as a hand-written one.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import warnings
from typing import Any, Dict, List, Tuple, cast

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from fedclient.worker.deploy.writer import OPSET, Writer
from fedspect.errors import ModelError
from fedspect.model.levels import LevelledNetwork

GRAPH_ATTRIBUTES = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


class TorchGraph:
    """Levels ``first`` (counted from 0) to before ``last`` of a network as ONNX nodes."""

    def __init__(self, network: LevelledNetwork, size: int) -> None:
        """``size``: height and width of the pictures, in pixels.

        Raises:
            ModelError: the network does not answer pictures of that size.

        """
        self.network = network
        self._levels = [level for _, level in network.levels()]
        self._shapes: List[Tuple[int, ...]] = [(network.channels, size, size)]
        self._device = next((each.device for each in network.parameters()), torch.device("cpu"))
        self._was_training = network.training
        network.eval()
        try:
            with torch.no_grad():
                values = torch.zeros(2, *self._shapes[0], device=self._device)
                for level in self._levels:
                    values = level(values)
                    self._shapes.append(tuple(values.shape[1:]))
        except Exception as error:  # a network of another package may fail in any way
            raise self._refused(error) from error
        finally:
            network.train(self._was_training)

    def shape(self, level: int) -> Tuple[int, ...]:
        """The shape of the features in front of a level (behind the last: of the logits), without the batch."""
        return self._shapes[level]

    def own_channels(self, level: int) -> None:
        """All channels are the network's own."""

    def write(self, writer: Writer, source: str, first: int, last: int) -> str:
        """Add the levels' nodes behind the value ``source``; the name of their result.

        Raises:
            ModelError: torch cannot write one of the operators at opset 17.

        """
        sample = torch.rand(2, *self._shapes[first], device=self._device)
        part = copy.deepcopy(nn.Sequential(*self._levels[first:last])).eval()
        try:
            graph = _exported(_with_matrix_pools(part, sample), sample)
        except Exception as error:  # the exporter has many exception classes and no common one
            raise self._refused(error) from error
        return _adopted(writer, graph, source, self.network.architecture)

    def _refused(self, error: Exception) -> ModelError:
        lines = [line for line in str(error).splitlines() if line.strip()]
        unsupported = [line for line in lines if "nsupported" in line]
        return ModelError(
            f"{self.network.architecture} cannot be written as ONNX",
            seen=f"{type(error).__name__}: {(unsupported or lines or [''])[0]}"[:300],
            accepted=f"a network of operators that torch.onnx exports at opset {OPSET}",
            remedy="replace that operator in the network, or choose another architecture",
        )


class AveragedCells(nn.Module):
    """Adaptive average pooling at a known size, as two matrix products: (N, C, H, W) -> (N, C, h, w)."""

    rows: Tensor
    columns: Tensor

    def __init__(self, given: Tuple[int, int], wanted: Tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rows", _cells(given[0], wanted[0]))
        self.register_buffer("columns", _cells(given[1], wanted[1]).t().contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """The mean of each cell."""
        return torch.matmul(torch.matmul(self.rows, features), self.columns)


def _cells(given: int, wanted: int) -> Tensor:
    """Which share of each cell's mean a row has, (wanted, given); cells begin and end as torch lays them."""
    matrix = torch.zeros(wanted, given)
    for cell in range(wanted):
        begin, end = cell * given // wanted, -(-(cell + 1) * given // wanted)
        matrix[cell, begin:end] = 1 / (end - begin)
    return matrix


def _with_matrix_pools(part: nn.Module, sample: Tensor) -> nn.Module:
    """The part with ``AveragedCells`` in place of adaptive pools whose cells are not of one size."""
    seen: Dict[nn.Module, Tuple[int, int]] = {}

    def note(module: nn.Module, given: Tuple[Tensor, ...], answer: Tensor) -> None:
        seen[module] = (int(given[0].shape[-2]), int(given[0].shape[-1]))

    pools = [(name, each) for name, each in part.named_modules() if isinstance(each, nn.AdaptiveAvgPool2d)]
    hooks = [pool.register_forward_hook(note) for _, pool in pools]
    with torch.no_grad():
        part(sample)
    for hook in hooks:
        hook.remove()
    for name, pool in pools:
        if pool not in seen:
            continue
        given, asked = seen[pool], cast(Any, pool.output_size)
        both = asked if isinstance(asked, tuple) else (asked, asked)
        wanted = (given[0] if both[0] is None else both[0], given[1] if both[1] is None else both[1])
        if given[0] % wanted[0] or given[1] % wanted[1]:
            parent = part.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], AveragedCells(given, wanted).to(sample.device))
    return part


def _exported(part: nn.Module, sample: Tensor) -> onnx.GraphProto:
    file = io.BytesIO()
    old: Dict[str, Any] = (
        {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    )
    # on an error the exporter prints its graph; standard output may belong to a message of ours
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # that the exporter is the older one is known
        torch.onnx.export(
            part,
            (sample,),
            cast(Any, file),  # both exporters write to an open file; torch's hints name a path only
            opset_version=OPSET,
            input_names=["source"],
            output_names=["result"],
            dynamic_axes={"source": {0: "batch"}, "result": {0: "batch"}},
            **old,
        )
    return onnx.load_from_string(file.getvalue()).graph


def _adopted(writer: Writer, graph: onnx.GraphProto, source: str, architecture: str) -> str:
    """Move a graph's nodes and constants to the writer, under names in the order of the nodes."""
    names = {"": "", "source": source}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        kinds = {attribute.type for attribute in node.attribute}
        if kinds & set(GRAPH_ATTRIBUTES):
            raise ModelError(
                f"{architecture} takes another way for some pictures, which a deploy graph cannot",
                seen=node.op_type,
                remedy="write its forward without a condition on the values",
            )
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t
            continue
        number = len(writer.nodes) + 1
        name = f"{node.op_type.lower()}{number}"
        for place, value in enumerate(node.input):
            if value in constants and value not in names:
                names[value] = f"{name}.constant{place}"
                tensor = numpy_helper.from_array(numpy_helper.to_array(constants[value]), names[value])
                writer.constants[names[value]] = tensor
        added = onnx.NodeProto()
        added.CopyFrom(node)
        added.name, added.doc_string = name, ""
        added.input[:] = [names[value] for value in node.input]
        for place, value in enumerate(node.output):
            names[value] = (name if place == 0 else f"{name}.{place}") if value else ""
        added.output[:] = [names[value] for value in node.output]
        writer.nodes.append(added)
    (result,) = [value.name for value in graph.output]
    if names.get(result, source) == source:  # levels that do nothing
        return writer.node("Identity", f"identity{len(writer.nodes) + 1}", [source])
    return names[result]
