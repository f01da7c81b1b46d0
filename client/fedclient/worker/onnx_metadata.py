"""What stands in an ONNX file of ours beside its weights, and the hash of what it computes. Knows no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, cast

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from fedspect.errors import EngineError

PREFIX = "fedspect."
LARGEST_FILE = 512 << 20
"""Bytes; model C has 25 MB of weights."""
UNHASHED = ("content_hash", "version")


@dataclass(frozen=True)
class OnnxFile:
    """A checked file: the model and what it says of itself, without the prefix."""

    path: Path
    model: onnx.ModelProto
    metadata: Mapping[str, str]

    @property
    def content_hash(self) -> str:
        """Equal hashes are equal answers; a version's name is not part of it."""
        return self.metadata["content_hash"]


def metadata_of(model: onnx.ModelProto) -> Dict[str, str]:
    """What Fedspect wrote about a model, without the prefix; lists and numbers are JSON."""
    return {
        item.key[len(PREFIX) :]: item.value for item in model.metadata_props if item.key.startswith(PREFIX)
    }


def content_hash(facts: Mapping[str, str], model: onnx.ModelProto) -> str:
    """SHA-256 in hex over facts, nodes and constants; how protobuf lays out the file does not matter."""
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode("utf-8"))
    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        line = [node.op_type, node.name, list(node.input), list(node.output), attributes]
        digest.update(json.dumps(line, sort_keys=True, default=_readable).encode("utf-8"))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        digest.update(json.dumps([tensor.name, values.dtype.str, list(values.shape)]).encode("utf-8"))
        digest.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def read_onnx(path: Path) -> OnnxFile:
    """Read a file and see that it computes what its own hash says.

    Raises:
        EngineError: it is missing, too large, no ONNX, not of ours, or was changed after it was written.

    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise _unusable(path, f"{size} bytes, more than {LARGEST_FILE}")
        content = path.read_bytes()
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    try:
        model = onnx.ModelProto.FromString(content)
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise _unusable(path, "it keeps weights in other files")
        onnx.checker.check_model(model)
        metadata = metadata_of(model)
        facts = {key: value for key, value in metadata.items() if key not in UNHASHED}
        found = content_hash(facts, model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise _unusable(path, str(error).strip().splitlines()[0]) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # a damaged tensor or attribute
        raise _unusable(path, f"a damaged part: {error}") from error
    claimed = metadata.get("content_hash")
    if claimed is None:
        raise _unusable(path, "it was not written by Fedspect: it names no content hash")
    if claimed != found:
        raise _unusable(path, f"it says {claimed[:12]} and holds {found[:12]}")
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise _unusable(path, f"{len(model.graph.input)} inputs and {len(model.graph.output)} outputs")
    return OnnxFile(path, model, metadata)


def _unusable(path: Path, why: str) -> EngineError:
    return EngineError(
        "an ONNX file cannot be used",
        seen=f"{path}: {why}",
        accepted="a file as the deploy graph's export wrote it",
        remedy="export it from the version again",
    )


def _readable(value: object) -> object:
    if isinstance(value, onnx.TensorProto):  # an attribute of ConstantOfShape, for one
        values = numpy_helper.to_array(value)
        return [values.dtype.str, list(values.shape), values.tolist()]
    return value.decode("utf-8") if isinstance(value, bytes) else list(cast("list[object]", value))
