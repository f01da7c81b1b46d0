"""From a trained network to checked ONNX models: the whole, and its two parts at the cut.

The backbone (pixels -> features) belongs to a base model and is built into an engine once; the head (features
-> logits) belongs to a version and is rebuilt after each round; the whole is the reference for both.
``metadata_props`` says what each is: version, classes, normalisation, hashes. The content hash covers every
node and constant of the graph and the metadata except the version, so equal hashes are equal answers and a
backbone keeps its hash from version to version.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Protocol, Sequence, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from fedclient.worker.deploy.closed_form import (
    ClosedForm,
    closed_form_of,
    read_row,
    write_discriminant,
    write_row,
    write_tap,
)
from fedclient.worker.deploy.description import Description, describe
from fedclient.worker.deploy.emit import Emitter
from fedclient.worker.deploy.forms import CPU, TORCH, Form, rewritten
from fedclient.worker.deploy.torch_export import TorchGraph
from fedclient.worker.deploy.writer import Features, Writer
from fedclient.worker.onnx_metadata import PREFIX, content_hash, metadata_of
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import InputSizeError, ModelError, SettingsError
from fedspect.files import write_bytes
from fedspect.model.condensenetv2 import CondenseNetV2
from fedspect.model.levels import LevelledNetwork, cut_level

__all__ = ["DeployFacts", "DeployGraphs", "content_hash", "deploy_graphs", "metadata_of", "save_graphs"]

PIXELS, FEATURES, LOGITS = "pixels", "features", "logits"
PIXEL_KINDS = ("uint8", "float32", "normalised")


@dataclass(frozen=True)
class DeployFacts:
    """What stands in the files beside the weights."""

    version: str
    classes: Sequence[str]
    preprocessing: Preprocessing
    base_hash: str


@dataclass(frozen=True)
class DeployGraphs:
    """The three models; without frozen levels there is no backbone, and the head would be the whole."""

    whole: onnx.ModelProto
    backbone: Optional[onnx.ModelProto]
    head: Optional[onnx.ModelProto]

    def by_name(self) -> Dict[str, onnx.ModelProto]:
        """Those that exist, by name: whole, backbone, head."""
        parts = {"whole": self.whole, "backbone": self.backbone, "head": self.head}
        return {name: model for name, model in parts.items() if model is not None}


def deploy_graphs(
    network: LevelledNetwork,
    facts: DeployFacts,
    *,
    form: Form = CPU,
    freeze_levels: Optional[int] = None,
    pixels: str = "uint8",
) -> DeployGraphs:
    """Write the network's graphs. The batch is dynamic; height and width are the preprocessing's size.

    ``form`` is for CondenseNetV2, whose graph is written by hand; any other network is exported by torch.
    ``pixels`` is what the graph takes: "uint8" or "float32" pixels of 0 to 255 (normalised inside), or pixels
    "normalised" outside. ``freeze_levels`` places the cut; by default the network's own.

    Raises:
        ModelError: still learning its groups, an operator that ONNX has not, or classes that do not fit.
        InputSizeError: the preprocessing does not fit the network.
        SettingsError: no such kind of pixels.

    """
    if pixels not in PIXEL_KINDS:
        raise SettingsError("no such kind of pixels", seen=pixels, accepted=", ".join(PIXEL_KINDS))
    _check(network, facts)
    size = facts.preprocessing.size
    graph: _Graph
    if isinstance(network, CondenseNetV2) and form is not TORCH:
        graph = WrittenGraph(rewritten(describe(network), form), form, size)
    else:
        graph, form = TorchGraph(network, size), TORCH
    levels = freeze_levels if freeze_levels is not None else network.freeze_levels
    cut = cut_level(network, levels or (network.default_freeze_levels if freeze_levels is None else 0))
    closed_form = closed_form_of(network, levels)
    exporter = _Exporter(graph, network.architecture, form, facts, pixels, cut, closed_form)
    last = len(network.levels())
    whole = exporter.part("whole", 0, last)
    if cut == 0:
        return DeployGraphs(whole, None, None)
    return DeployGraphs(whole, exporter.part("backbone", 0, cut), exporter.part("head", cut, last))


def save_graphs(folder: Path, graphs: DeployGraphs) -> List[Path]:
    """Write ``whole.onnx``, ``backbone.onnx`` and ``head.onnx``; raises ``StorageError``."""
    paths = []
    for name, model in graphs.by_name().items():
        path = folder / f"{name}.onnx"
        write_bytes(path, model.SerializeToString(deterministic=True))
        paths.append(path)
    return paths


class _Graph(Protocol):
    """A network that can write any run of its levels. Shapes are without the batch."""

    def shape(self, level: int) -> Tuple[int, ...]:
        """The shape in front of a level, counted from 0."""

    def own_channels(self, level: int) -> Optional[np.ndarray]:
        """Which channels of the map in front of a level are the network's own; None: all."""

    def write(self, writer: Writer, source: str, first: int, last: int) -> str:
        """Add levels ``first`` to before ``last`` behind the value ``source``; the name of their result."""


class WrittenGraph:
    """The hand-written graph of a CondenseNetV2: an optimisation of what torch exports."""

    def __init__(self, description: Description, form: Form, size: int) -> None:
        self.description, self.form = description, form
        self._pixels = Features(PIXELS, description.channels, size)

    def shape(self, level: int) -> Tuple[int, ...]:
        """Written once more only to learn the shape."""
        return dimensions(self._levels(Writer(), self._pixels, 0, level))

    def own_channels(self, level: int) -> Optional[np.ndarray]:
        """Without the silent channels that some forms add."""
        return self.description.blocks[(level - 2) // 2].places

    def write(self, writer: Writer, source: str, first: int, last: int) -> str:
        """The levels' nodes."""
        shape = self.shape(first)
        return self._levels(
            writer, Features(source, shape[0], shape[1] if len(shape) > 1 else 0), first, last
        ).name

    def _levels(self, writer: Writer, features: Features, first: int, last: int) -> Features:
        return Emitter(self.description, self.form, writer).levels(features, first, last)


class _Exporter:
    def __init__(
        self,
        graph: _Graph,
        architecture: str,
        form: Form,
        facts: DeployFacts,
        pixels: str,
        cut: int,
        closed_form: Optional[ClosedForm],
    ) -> None:
        self.closed_form = closed_form
        self.graph, self.architecture, self.form = graph, architecture, form
        self.facts, self.pixels, self.cut = facts, pixels, cut

    def part(self, name: str, first: int, last: int) -> onnx.ModelProto:
        writer = Writer()
        kind = TensorProto.UINT8 if first == 0 and self.pixels == "uint8" else TensorProto.FLOAT
        source = PIXELS if first == 0 else FEATURES
        result = FEATURES if name == "backbone" else LOGITS
        begin = self._normalised(writer) if first == 0 else source
        if self.closed_form is None:
            end = self.graph.write(writer, begin, first, last)
            taken, given = self.graph.shape(first), self.graph.shape(last)
        else:
            end, taken, given = self._with_closed_form(writer, self.closed_form, begin, first, last)
        writer.rename(end, result)
        model = writer.model(
            f"{self.architecture}-{name}",
            helper.make_tensor_value_info(source, kind, ["batch", *taken]),
            helper.make_tensor_value_info(result, TensorProto.FLOAT, ["batch", *given]),
            {},
        )
        helper.set_model_props(model, self._metadata(name, model))
        return model

    def _with_closed_form(
        self, writer: Writer, form: ClosedForm, begin: str, first: int, last: int
    ) -> Tuple[str, Tuple[int, ...], Tuple[int, ...]]:
        """The end of a part, and the shapes of what it takes and gives. At the cut travel rows of taps and features,
        or taps alone where nothing behind them matters.
        """
        count, shape = form.whitening.weight.shape[1], self.graph.shape(self.cut)
        row: Tuple[int, ...] = (count,) if form.alone else (count + int(np.prod(shape)),)
        taken = row
        if first == 0:
            taken = self.graph.shape(0)
            taps, features = self._tapped(writer, form, begin)
        elif form.alone:
            taps, features = begin, ""
        else:
            taps, features = read_row(writer, begin, count, shape)
        if last == self.cut:
            return taps if form.alone else write_row(writer, taps, features), taken, row
        residual = None if form.alone else self.graph.write(writer, features, self.cut, last)
        (classes,) = self.graph.shape(last)
        return write_discriminant(writer, form, taps, residual), taken, (classes + 1,)

    def _tapped(self, writer: Writer, form: ClosedForm, features: str) -> Tuple[str, str]:
        """The levels before the cut: all taps (N, D), and the features at the cut where they are needed."""
        taps: List[str] = []
        first = 0
        for place in form.taps:
            features = self.graph.write(writer, features, first, place + 1)
            first = place + 1
            channels, own = self.graph.shape(first)[0], self.graph.own_channels(first)
            taps.append(write_tap(writer, f"tap{first}", features, channels, own))
        if first < self.cut and not form.alone:
            features = self.graph.write(writer, features, first, self.cut)
        return writer.node("Concat", "taps", taps, axis=1), features

    def _normalised(self, writer: Writer) -> str:
        name = PIXELS
        if self.pixels == "normalised":
            return name
        if self.pixels == "uint8":
            name = writer.node("Cast", "pixels/float", [name], to=TensorProto.FLOAT)
        mean = np.array(self.facts.preprocessing.mean)[:, None, None]
        std = np.array(self.facts.preprocessing.std)[:, None, None]
        name = writer.node("Mul", "pixels/scaled", [name, writer.constant("pixels.scale", 1 / (255 * std))])
        return writer.node("Add", "pixels/normalised", [name, writer.constant("pixels.shift", -mean / std)])

    def _metadata(self, part: str, model: onnx.ModelProto) -> Dict[str, str]:
        preprocessing = self.facts.preprocessing
        facts = {
            "format": "1",
            "part": part,
            "form": self.form.name,
            "architecture": self.architecture,
            "cut_level": str(self.cut),
            "input_size": str(preprocessing.size),
            "channels": str(preprocessing.channels),
            "pixels": self.pixels,
            "normalisation": json.dumps({"mean": preprocessing.mean, "std": preprocessing.std}),
            "base_hash": self.facts.base_hash,
        }
        if part != "backbone":
            facts["classes"] = json.dumps(list(self.facts.classes))
        if self.closed_form is not None:
            facts["taps"] = str(self.closed_form.whitening.weight.shape[1])
            if part != "backbone":
                facts["limit"] = repr(self.closed_form.limit)
        facts["content_hash"] = content_hash(facts, model)
        facts["version"] = self.facts.version
        return {PREFIX + key: value for key, value in facts.items()}


def dimensions(features: Features) -> Tuple[int, ...]:
    """The shape of features without the batch: (C, H, W), or (C) for a flat vector."""
    return (features.channels, *([features.size] * 2 if features.size else []))


def _check(network: LevelledNetwork, facts: DeployFacts) -> None:
    preprocessing = facts.preprocessing
    if len(facts.classes) != network.num_classes:
        raise ModelError(
            "the list of classes does not fit the network",
            seen=f"{len(facts.classes)} classes",
            accepted=str(network.num_classes),
        )
    if preprocessing.channels != network.channels or preprocessing.size < network.minimum_size:
        raise InputSizeError(
            "the preprocessing does not fit the network",
            seen=f"{preprocessing.channels} channel(s), {preprocessing.size} pixels",
            accepted=f"{network.channels} channel(s), {network.minimum_size} pixels or more",
        )
