"""Requests of the Open Inference Protocol read within bounds, and replies written.

A request holds one input: ``picture``, BYTES of shape (N) or (N, 1), encoded pictures; or ``pixels``, UINT8 of
shape (N, C, H, W) or (N, H, W, C), C 1 or 3 (where both read so, channels are in front; the input's parameter
``layout`` says it otherwise). Three channels are red, green, blue; the parameter ``colour`` = ``bgr`` turns them
round, as OpenCV has them. Values come in ``raw_input_contents`` as Triton's clients send them, or typed.
The reply has the outputs below, or those that were asked for, in the form in which the request came.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from fedclient.worker.line.decision_policy import Verdict
from fedclient.worker.line.input_guard import InputBatch
from fedclient.worker.line.serving.input_pictures import from_encoded, from_pixels
from fedclient.worker.line.serving.memory_budget import MemoryBudget
from fedclient.worker.line.serving.model_leases import ServedModel
from fedclient.worker.line.serving.protocol_messages import message
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import SettingsError

ModelInferRequest, ModelInferResponse = message("ModelInferRequest"), message("ModelInferResponse")

MODEL_NAME = "surface"
PICTURE, PIXELS = "picture", "pixels"
INPUTS: Tuple[Tuple[str, str, Tuple[int, ...]], ...] = (
    (PICTURE, "BYTES", (-1,)),
    (PIXELS, "UINT8", (-1, -1, -1, -1)),
)
OUTPUTS = ("class", "confidence", "verdict", "probabilities", "version", "reason")


class RequestError(SettingsError):
    """A request is not one of these."""


@dataclass(frozen=True)
class RequestInput:
    """What a request gives: encoded pictures, or uint8 pixels (N, ., ., .), and whether it came raw."""

    encoded: Optional[List[bytes]]
    pixels: Optional[np.ndarray]
    layout: Optional[str]
    raw: bool
    colour: Optional[str] = None

    def __len__(self) -> int:
        return len(self.encoded) if self.encoded is not None else len(self.pixels)  # type: ignore[arg-type]

    def prepared(self, preprocessing: Preprocessing, room: Optional[MemoryBudget] = None) -> InputBatch:
        """As the network takes them; raises ``PictureError``, and ``BusyError`` where the ``room`` stays full."""
        if self.encoded is not None:
            return from_encoded(self.encoded, preprocessing, room=room)
        assert self.pixels is not None
        return from_pixels(self.pixels, preprocessing, self.layout, room, self.colour)

    def source(self, place: int) -> Union[bytes, np.ndarray]:
        """One picture as it came: encoded, or its pixels."""
        if self.encoded is not None:
            return self.encoded[place]
        assert self.pixels is not None
        return np.array(self.pixels[place])  # a view would keep the whole request


def read_request(request: Any, *, most: int) -> RequestInput:
    """The pictures of a request, at most ``most``.

    Raises:
        RequestError: not one input of the two, or values that do not fit its shape.

    """
    if len(request.inputs) != 1:
        raise RequestError("a request has one input", seen=f"{len(request.inputs)} inputs", accepted=_known())
    given = request.inputs[0]
    wanted = {name: datatype for name, datatype, _ in INPUTS}.get(given.name)
    if wanted is None or given.datatype != wanted:
        raise RequestError(
            "no such input",
            seen=f"{given.name[:60]!r} of {given.datatype[:20] or 'no type'}",
            accepted=_known(),
        )
    for parameters in (given.parameters, request.parameters):
        for name in parameters:
            if name.startswith("shared_memory"):
                raise RequestError("shared memory is not offered", remedy="send the values in the request")
    shape = tuple(int(size) for size in given.shape)
    ranks = (1, 2) if wanted == "BYTES" else (4,)
    if len(shape) not in ranks or min(shape) < 1 or (len(shape) == 2 and shape[1] != 1):
        raise RequestError(
            "a shape does not fit its input", seen=f"{given.name} {list(shape)}", accepted=_known()
        )
    if shape[0] > most:
        raise RequestError("too many pictures in one request", seen=shape[0], accepted=f"up to {most}")
    raw = bool(request.raw_input_contents)
    if raw and (len(request.raw_input_contents) != 1 or given.HasField("contents")):
        raise RequestError(
            "a request's values come once", accepted="raw_input_contents, or the input's contents"
        )
    layout, colour = (_text(given, name) for name in ("layout", "colour"))
    content = request.raw_input_contents[0] if raw else None
    if wanted == "BYTES":
        encoded = _split(content) if content is not None else list(given.contents.bytes_contents)
        if len(encoded) != shape[0]:
            raise _wrong_count(given.name, len(encoded), shape)
        return RequestInput(encoded, None, None, raw)
    count = int(np.prod([float(size) for size in shape]))  # a float does not overflow
    values = (
        np.frombuffer(content, dtype=np.uint8)
        if content is not None
        else _bytes_of(given.contents.uint_contents)
    )
    if len(values) != count:
        raise _wrong_count(given.name, len(values), shape)
    return RequestInput(None, values.reshape(shape), layout, raw, colour)


def wanted_outputs(request: Any) -> Sequence[str]:
    """The names of the outputs to send; raises ``RequestError`` for one that is not offered."""
    names = [output.name for output in request.outputs]
    for output in request.outputs:
        if output.name not in OUTPUTS or "classification" in output.parameters:
            raise RequestError("no such output", seen=output.name[:60], accepted=", ".join(OUTPUTS))
        if any(name.startswith("shared_memory") for name in output.parameters):
            raise RequestError("shared memory is not offered", remedy="take the values from the reply")
    return names or OUTPUTS


def write_reply(
    request: Any, model: ServedModel, verdicts: Sequence[Verdict], names: Sequence[str], *, raw: bool
) -> Any:
    """The reply to a request."""
    reply = ModelInferResponse(model_name=MODEL_NAME, model_version=str(model.number), id=request.id)
    columns: Dict[str, List[Any]] = {
        "class": [each.label.encode("utf-8") for each in verdicts],
        "confidence": [each.confidence for each in verdicts],
        "verdict": [each.outcome.encode("utf-8") for each in verdicts],
        "probabilities": [value for each in verdicts for value in each.probabilities],
        "reason": ["; ".join(each.reasons).encode("utf-8") for each in verdicts],
        "version": [model.version.encode("utf-8")] * len(verdicts),
    }
    for name in names:
        datatype, shape = output_facts(name, len(model.classes))
        output = reply.outputs.add(name=name, datatype=datatype, shape=[len(verdicts), *shape[1:]])
        values = columns[name]
        if not raw:
            contents = (
                output.contents.bytes_contents if datatype == "BYTES" else output.contents.fp32_contents
            )
            contents.extend(values)
        elif datatype == "BYTES":
            reply.raw_output_contents.append(b"".join(struct.pack("<I", len(each)) + each for each in values))
        else:
            reply.raw_output_contents.append(np.asarray(values, dtype="<f4").tobytes())
    return reply


def output_facts(name: str, classes: int) -> Tuple[str, Tuple[int, ...]]:
    """Type and shape of an output, -1 for the number of pictures."""
    if name == "probabilities":
        return "FP32", (-1, classes)
    return ("FP32" if name == "confidence" else "BYTES"), (-1,)


def _text(given: Any, name: str) -> Optional[str]:
    return given.parameters[name].string_param if name in given.parameters else None


def _split(content: bytes) -> List[bytes]:
    """Elements of a BYTES tensor: four bytes of length, little end first, and as many bytes."""
    found, place = [], 0
    while place < len(content):
        end = place + 4
        if end > len(content):
            raise RequestError("a BYTES tensor is cut off", seen=f"{len(content)} bytes")
        end += int(struct.unpack_from("<I", content, place)[0])
        if end > len(content):
            raise RequestError("a BYTES tensor is cut off", seen=f"{len(content)} bytes, {end} announced")
        found.append(content[place + 4 : end])
        place = end
    return found


def _bytes_of(values: Sequence[int]) -> np.ndarray:
    array = np.asarray(values, dtype=np.uint32)
    if array.size and int(array.max()) > 255:
        raise RequestError("pixels are numbers of 0 to 255", seen=int(array.max()))
    return array.astype(np.uint8)


def _wrong_count(name: str, seen: int, shape: Tuple[int, ...]) -> RequestError:
    return RequestError("a tensor's values do not fit its shape", seen=f"{name}: {seen} for {list(shape)}")


def _known() -> str:
    return "picture: BYTES (N); pixels: UINT8 (N, C, H, W) or (N, H, W, C)"
