"""Model of the line: pixels in, logits, probabilities and features out, through the engines of one deployment.

Shapes: N pictures, C channels, H = W the input size, F features at the cut, K classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import List, Mapping, Optional, Protocol, Sequence, Tuple

import numpy as np

from fedclient.worker.engines.interface import Engine
from fedclient.worker.engines.opening import open_engine
from fedclient.worker.engines.store import EngineStore
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import EngineError, FedspectError

PARTS = (("backbone", "head"), ("whole",))


class Deployed(Protocol):
    """What a deployment says of its model."""

    @property
    def version(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def base_hash(self) -> str: ...
    @property
    def bit_depth(self) -> Optional[int]: ...
    @property
    def engines(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class LineAnswer:
    """``logits`` (N, K) and ``probabilities`` (N, K), float32; ``features`` (N, F): the mean of the cut's
    features over the picture (with a closed form its taps), (N, 0) where a whole engine shows none.
    ``unlikeness`` (N,): squared Mahalanobis distance to the nearest class in shares of the limit, so that beyond 1 a
    picture is unlike all training pictures; None where the version measures none.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray
    unlikeness: Optional[np.ndarray] = None


class LineModel:
    """Open engines of one version. ``answer`` may be called from several threads."""

    def __init__(
        self,
        version: str,
        number: int,
        classes: Tuple[str, ...],
        preprocessing: Preprocessing,
        pixels: str,
        engines: Tuple[Engine, ...],
    ) -> None:
        self.version = version
        self.number = number
        self.classes = classes
        self.preprocessing = preprocessing
        self.engines = engines
        self.limit: Optional[float] = None
        """The squared distance beyond which a picture is unlike all training pictures; None: not measured."""
        self._pixels = pixels
        said = engines[-1].metadata
        self._taps = int(said.get("taps", 0))
        if "limit" in said:
            self.limit = float(said["limit"])

    def answer(self, pixels: np.ndarray) -> LineAnswer:
        """Judge pictures: uint8 (N, C, H, W), sized as the preprocessing does.

        Raises:
            EngineError: the pixels do not fit, an engine failed, or an answer is not a number.

        """
        shape = (self.preprocessing.channels, self.preprocessing.size, self.preprocessing.size)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != shape or not len(pixels):
            raise EngineError(
                "pixels do not fit the model",
                seen=f"{pixels.dtype.name} {' x '.join(map(str, pixels.shape))}",
                accepted="uint8 N x " + " x ".join(map(str, shape)),
            )
        values = self.engines[0].run(self._prepared(pixels))
        features = np.zeros((len(pixels), 0), np.float32)
        if len(self.engines) == 2:
            features = values[:, : self._taps] if self._taps else _pooled(values)
            values = self.engines[1].run(values)
        answers = values.astype(np.float32, copy=False)
        if not np.isfinite(answers).all():
            raise EngineError(
                "an engine's answer is not a number",
                seen=f"version {self.version}",
                remedy="go back with `fedclient engines rollback`",
            )
        if self.limit is None:
            return LineAnswer(answers, softmax(answers), features)
        logits = answers[:, :-1]
        return LineAnswer(logits, softmax(logits), features, answers[:, -1] / np.float32(self.limit))

    def close(self) -> None:
        """Close all engines."""
        for engine in self.engines:
            engine.close()

    def _prepared(self, pixels: np.ndarray) -> np.ndarray:
        if self._pixels == "uint8":
            return np.ascontiguousarray(pixels)
        if self._pixels == "float32":
            return np.ascontiguousarray(pixels, dtype=np.float32)
        return self.preprocessing.normalise(pixels)


def open_model(deployment: Deployed, store: EngineStore, *, threads: int = 1) -> LineModel:
    """Open a deployment's engines and see that they belong together.

    Raises:
        EngineError: an engine is missing, does not open, or belongs to another model.
        DamagedFileError: an engine is not what was built.

    """
    parts = next((parts for parts in PARTS if set(parts) == set(deployment.engines)), None)
    if parts is None:
        raise EngineError(
            "a deployment names engines that make no model",
            seen=", ".join(sorted(deployment.engines)) or "none",
            accepted="backbone and head, or whole",
        )
    engines: List[Engine] = []
    try:
        for part in parts:
            engine = open_engine(store.get(deployment.engines[part]), threads=threads)
            engines.append(engine)
            _belongs(engine, part, deployment)
        if len(engines) == 2 and engines[0].outputs.shape != engines[1].inputs.shape:
            raise _other("the head does not take what the backbone gives", engines[1], deployment)
        metadata = engines[0].metadata
        preprocessing = _preprocessing(metadata).of_camera(deployment.bit_depth)
    except FedspectError:
        for engine in engines:
            engine.close()
        raise
    return LineModel(
        deployment.version,
        deployment.number,
        tuple(deployment.classes),
        preprocessing,
        metadata.get("pixels", "uint8"),
        tuple(engines),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) of logits (N, K), float32."""
    raised = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float32)


def _pooled(features: np.ndarray) -> np.ndarray:
    values = features.astype(np.float32, copy=False)
    return values if values.ndim == 2 else np.asarray(values.mean(axis=tuple(range(2, values.ndim))))


def _belongs(engine: Engine, part: str, deployment: Deployed) -> None:
    said = engine.metadata
    if said.get("part") != part or said.get("base_hash") != deployment.base_hash:
        raise _other("an engine belongs to another model", engine, deployment)
    if part != "backbone" and json.loads(said.get("classes", "[]")) != list(deployment.classes):
        raise _other("an engine knows other classes", engine, deployment)


def _preprocessing(metadata: Mapping[str, str]) -> Preprocessing:
    try:
        normal = json.loads(metadata["normalisation"])
        size, channels = int(metadata["input_size"]), int(metadata["channels"])
        return Preprocessing(size, channels, tuple(normal["mean"]), tuple(normal["std"]))
    except (KeyError, ValueError, TypeError) as error:
        raise EngineError(
            "an engine does not say how pictures are prepared for it", seen=error, remedy="build it again"
        ) from error


def _other(what: str, engine: Engine, deployment: Deployed) -> EngineError:
    said = engine.metadata
    return EngineError(
        what,
        seen=f"{said.get('part')} of base {str(said.get('base_hash'))[:12]}, {engine.inputs.shape}",
        accepted=f"base {deployment.base_hash[:12]}, {len(deployment.classes)} classes",
        remedy="build the version's engines again",
    )
