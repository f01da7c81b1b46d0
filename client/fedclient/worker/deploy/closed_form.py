"""ONNX of a closed form: taps on the backbone, and the linear discriminant with its distance behind them.

A tap is the mean and standard deviation of each channel of a map. The discriminant is one matrix (the whitening) and
one vector for each class; the squared Mahalanobis distance costs a sum more. See ``fedspect.discriminant``.

Shapes: N images, C channels, D tapped values, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from fedclient.worker.deploy.description import Linear, array
from fedclient.worker.deploy.writer import Writer
from fedspect.model.levels import LevelledNetwork, tap_places


@dataclass(frozen=True)
class ClosedForm:
    """The discriminant of a network; its taps are behind the levels numbered ``taps`` (from 0).

    ``alone``: the network's own classifier is zero, so that nothing behind the taps matters.

    """

    taps: Tuple[int, ...]
    whitening: Linear
    means: Linear
    sharpness: float
    limit: float
    alone: bool


def closed_form_of(network: LevelledNetwork, freeze_levels: int) -> Optional[ClosedForm]:
    """The network's closed form, if it has one."""
    discriminant = network.discriminant
    if discriminant is None:
        return None
    return ClosedForm(
        taps=tap_places(network, freeze_levels),
        whitening=Linear(array(discriminant.whitening.weight), array(discriminant.whitening.bias)),
        means=Linear(array(discriminant.means.weight), array(discriminant.means.bias)),
        sharpness=float(discriminant.sharpness),
        limit=float(discriminant.limit),
        alone=not network.trains_residual(),
    )


def write_tap(writer: Writer, name: str, source: str, channels: int, own: Optional[np.ndarray]) -> str:
    """The mean and standard deviation of each of a map's ``own`` channels: (N, C, H, W) -> (N, 2 C)."""
    means = writer.node("GlobalAveragePool", f"{name}/means", [source])
    squares = writer.node("Mul", f"{name}/squares", [source, source])
    squares = writer.node("GlobalAveragePool", f"{name}/mean_squares", [squares])
    square = writer.node("Mul", f"{name}/square", [means, means])
    variance = writer.node("Sub", f"{name}/variance", [squares, square])
    variance = writer.node("Relu", f"{name}/positive", [variance])
    deviations = writer.node("Sqrt", f"{name}/deviations", [variance])
    joined = writer.node("Concat", f"{name}/joined", [means, deviations], axis=1)
    flat = writer.node("Flatten", f"{name}/flat", [joined])
    if own is None or np.array_equal(own, np.arange(channels)):
        return flat
    index = writer.constant(f"{name}.index", np.concatenate([own, channels + own]))
    return writer.node("Gather", name, [flat, index], axis=1)


def write_discriminant(writer: Writer, form: ClosedForm, taps: str, residual: Optional[str]) -> str:
    """Logits, the head's added where there are any, and the squared distance behind them: (N, K + 1)."""
    whitened = _linear(writer, "discriminant/whitening", taps, form.whitening)
    scores = _linear(writer, "discriminant/means", whitened, form.means)
    sharpness = writer.constant("discriminant.sharpness", np.array(form.sharpness))
    logits = writer.node("Mul", "discriminant/logits", [scores, sharpness])
    if residual is not None:
        logits = writer.node("Add", "discriminant/with_residual", [logits, residual])
    squares = writer.node("Mul", "discriminant/squares", [whitened, whitened])
    axis = writer.constant("discriminant.axis", np.array([1]))
    length = writer.node("ReduceSum", "discriminant/length", [squares, axis], keepdims=1)
    nearest = writer.node("ReduceMax", "discriminant/nearest", [scores], axes=[1], keepdims=1)
    two = writer.constant("discriminant.two", np.array(2.0))
    twice = writer.node("Mul", "discriminant/twice", [nearest, two])
    distance = writer.node("Sub", "discriminant/difference", [length, twice])
    distance = writer.node("Relu", "discriminant/distance", [distance])
    return writer.node("Concat", "discriminant/answers", [logits, distance], axis=1)


def write_row(writer: Writer, taps: str, features: str) -> str:
    """Taps and features at the cut as one row, for the head: (N, D) and (N, ...) -> (N, D + F)."""
    flat = writer.node("Flatten", "row/flat", [features])
    return writer.node("Concat", "row", [taps, flat], axis=1)


def read_row(writer: Writer, row: str, count: int, shape: Tuple[int, ...]) -> Tuple[str, str]:
    """Taps (N, ``count``) and features (N, ``shape``) of a row."""
    axis = writer.constant("row.axis", np.array([1]))
    places = (0, count, count + int(np.prod(shape)))
    start, middle, end = (writer.constant(f"row.{place}", np.array([place])) for place in places)
    taps = writer.node("Slice", "row/taps", [row, start, middle, axis])
    flat = writer.node("Slice", "row/features", [row, middle, end, axis])
    wanted = writer.constant("row.shape", np.array([0, *shape]))
    return taps, writer.node("Reshape", "row/picture", [flat, wanted])


def _linear(writer: Writer, name: str, source: str, linear: Linear) -> str:
    inputs = [
        source,
        writer.constant(f"{name}.weight", linear.weight),
        writer.constant(f"{name}.bias", linear.bias),
    ]
    return writer.node("Gemm", name, inputs, transB=1)
