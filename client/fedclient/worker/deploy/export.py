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
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import onnx
from onnx import TensorProto, helper

from fedclient.worker.deploy.description import Description, describe
from fedclient.worker.deploy.emit import LEVELS, Emitter
from fedclient.worker.deploy.forms import CPU, Form, rewritten
from fedclient.worker.deploy.onnx_metadata import PREFIX, content_hash, metadata_of
from fedclient.worker.deploy.writer import Features, Writer
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import InputSizeError, ModelError, SettingsError
from fedspect.files import write_bytes
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

    ``pixels`` is what the graph takes: "uint8" or "float32" pixels of 0 to 255 (normalised inside), or pixels
    "normalised" outside. ``freeze_levels`` places the cut; by default the network's own.

    Raises:
        ModelError: not a CondenseNetV2, still learning its groups, or classes that do not fit.
        InputSizeError: the preprocessing does not fit the network.
        SettingsError: no such kind of pixels.

    """
    if pixels not in PIXEL_KINDS:
        raise SettingsError("no such kind of pixels", seen=pixels, accepted=", ".join(PIXEL_KINDS))
    description = rewritten(describe(network), form)
    _check(network, facts)
    levels = freeze_levels if freeze_levels is not None else network.freeze_levels
    cut = cut_level(network, levels or (network.default_freeze_levels if freeze_levels is None else 0))
    exporter = _Exporter(description, form, facts, pixels, cut)
    whole = exporter.part("whole", 0, LEVELS)
    if cut == 0:
        return DeployGraphs(whole, None, None)
    return DeployGraphs(whole, exporter.part("backbone", 0, cut), exporter.part("head", cut, LEVELS))


def save_graphs(folder: Path, graphs: DeployGraphs) -> List[Path]:
    """Write ``whole.onnx``, ``backbone.onnx`` and ``head.onnx``; raises ``StorageError``."""
    paths = []
    for name, model in graphs.by_name().items():
        path = folder / f"{name}.onnx"
        write_bytes(path, model.SerializeToString(deterministic=True))
        paths.append(path)
    return paths


class _Exporter:
    def __init__(
        self, description: Description, form: Form, facts: DeployFacts, pixels: str, cut: int
    ) -> None:
        self.description, self.form, self.facts, self.pixels, self.cut = description, form, facts, pixels, cut

    def part(self, name: str, first: int, last: int) -> onnx.ModelProto:
        if self.description.closed_form is not None:
            return self._closed_form_part(name, first, last)
        writer = Writer()
        emitter = Emitter(self.description, self.form, writer)
        size, channels = self.facts.preprocessing.size, self.description.channels
        if first == 0:
            kind = TensorProto.UINT8 if self.pixels == "uint8" else TensorProto.FLOAT
            source = helper.make_tensor_value_info(PIXELS, kind, ["batch", channels, size, size])
            features = self._normalised(writer, Features(PIXELS, channels, size))
        else:
            # written once more only to learn the shape at the cut
            before = Emitter(self.description, self.form, Writer())
            shape = before.levels(Features(PIXELS, channels, size), 0, first)
            source = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, dimensions(shape))
            features = Features(FEATURES, shape.channels, shape.size)
        end = emitter.levels(features, first, last)
        result = LOGITS if last == LEVELS else FEATURES
        writer.rename(end.name, result)
        shape_out = helper.make_tensor_value_info(result, TensorProto.FLOAT, dimensions(end))
        model = writer.model(f"{self.description.architecture}-{name}", source, shape_out, {})
        helper.set_model_props(model, self._metadata(name, model))
        return model

    def _closed_form_part(self, name: str, first: int, last: int) -> onnx.ModelProto:
        """A part of a network with a closed form: rows (N, D + F) of taps and features travel at the cut, or taps
        (N, D) where nothing behind them matters.
        """
        form = self.description.closed_form
        assert form is not None
        writer = Writer()
        emitter = Emitter(self.description, self.form, writer)
        size, channels = self.facts.preprocessing.size, self.description.channels
        if first == 0:
            kind = TensorProto.UINT8 if self.pixels == "uint8" else TensorProto.FLOAT
            source = helper.make_tensor_value_info(PIXELS, kind, ["batch", channels, size, size])
            features = emitter.levels(self._normalised(writer, Features(PIXELS, channels, size)), 0, self.cut)
            taps = emitter.taps()
        else:
            before = Emitter(self.description, self.form, Writer())
            features = before.levels(Features(PIXELS, channels, size), 0, first)
            taps = before.taps()
            row = Features(FEATURES, taps.channels, 0)
            if not form.alone:
                row, taps, features = self._split(writer, taps, features)
            else:
                taps = row
            source = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, dimensions(row))
        if last == LEVELS:
            residual = None if form.alone else emitter.levels(features, self.cut, LEVELS)
            end, result = emitter.discriminant(taps, residual), LOGITS
        elif form.alone:
            end, result = taps, FEATURES
        else:
            flat = writer.node("Flatten", "row/features", [features.name])
            joined = writer.node("Concat", "row", [taps.name, flat], axis=1)
            end, result = Features(joined, taps.channels + features.channels * features.size**2, 0), FEATURES
        writer.rename(end.name, result)
        shape_out = helper.make_tensor_value_info(result, TensorProto.FLOAT, dimensions(end))
        model = writer.model(f"{self.description.architecture}-{name}", source, shape_out, {})
        helper.set_model_props(model, self._metadata(name, model, taps.channels))
        return model

    @staticmethod
    def _split(writer: Writer, taps: Features, features: Features) -> Tuple[Features, Features, Features]:
        """A row, and taps and features cut out of it."""
        count, values = taps.channels, features.channels * features.size**2
        row = Features(FEATURES, count + values, 0)
        axis = writer.constant("row.axis", np.array([1]))
        start, middle = (
            writer.constant("row.start", np.array([0])),
            writer.constant("row.middle", np.array([count])),
        )
        end = writer.constant("row.end", np.array([count + values]))
        first = writer.node("Slice", "row/taps", [FEATURES, start, middle, axis])
        rest = writer.node("Slice", "row/features", [FEATURES, middle, end, axis])
        shape = writer.constant("row.shape", np.array([0, features.channels, features.size, features.size]))
        picture = writer.node("Reshape", "row/picture", [rest, shape])
        return row, Features(first, count, 0), Features(picture, features.channels, features.size)

    def _normalised(self, writer: Writer, pixels: Features) -> Features:
        if self.pixels == "normalised":
            return pixels
        name = pixels.name
        if self.pixels == "uint8":
            name = writer.node("Cast", "pixels/float", [name], to=TensorProto.FLOAT)
        mean = np.array(self.facts.preprocessing.mean)[:, None, None]
        std = np.array(self.facts.preprocessing.std)[:, None, None]
        name = writer.node("Mul", "pixels/scaled", [name, writer.constant("pixels.scale", 1 / (255 * std))])
        name = writer.node("Add", "pixels/normalised", [name, writer.constant("pixels.shift", -mean / std)])
        return Features(name, pixels.channels, pixels.size)

    def _metadata(self, part: str, model: onnx.ModelProto, taps: int = 0) -> Dict[str, str]:
        preprocessing = self.facts.preprocessing
        facts = {
            "format": "1",
            "part": part,
            "form": self.form.name,
            "architecture": self.description.architecture,
            "cut_level": str(self.cut),
            "input_size": str(preprocessing.size),
            "channels": str(preprocessing.channels),
            "pixels": self.pixels,
            "normalisation": json.dumps({"mean": preprocessing.mean, "std": preprocessing.std}),
            "base_hash": self.facts.base_hash,
        }
        if part != "backbone":
            facts["classes"] = json.dumps(list(self.facts.classes))
        form = self.description.closed_form
        if form is not None:
            facts["taps"] = str(taps)
            if part != "backbone":
                facts["limit"] = repr(form.limit)
        facts["content_hash"] = content_hash(facts, model)
        facts["version"] = self.facts.version
        return {PREFIX + key: value for key, value in facts.items()}


def dimensions(features: Features) -> List[Union[str, int, None]]:
    """The ONNX shape of features: (batch, C, H, W), or (batch, C) for a flat vector."""
    return ["batch", features.channels, *([features.size] * 2 if features.size else [])]


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
