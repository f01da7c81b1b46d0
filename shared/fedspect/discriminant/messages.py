"""The messages of the closed form's exchanges, in the frame of a round's messages.

``StatisticsTask`` asks for class statistics of a plant's training pictures, one for each group of orientations.
``ScoreTask`` asks for scores of candidates on its evaluation pictures: linear candidates to choose between, or the
one that was chosen with its whitening, to measure distances. Both carry no pictures and no features of one picture.
"""

from __future__ import annotations

from typing import ClassVar, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Annotated, Literal

from fedspect.discriminant import wire
from fedspect.discriminant.analysis import Discriminant, LinearScores
from fedspect.discriminant.scores import BINS, TEMPERATURES, Scores
from fedspect.discriminant.statistics import ClassStatistics
from fedspect.update.byte_reader import LENGTH, ByteReader, damaged
from fedspect.update.round_messages import (
    MAX_CLASSES,
    MAX_HEADER_BYTES,
    ContentHash,
    Count,
    PlantName,
    ReplyError,
    RunId,
    framed,
    unframed,
)

OrientationGroup = Literal["as-it-lies", "half-turn", "mirrored", "quarter-turns"]
ORIENTATION_GROUPS: Mapping[str, Tuple[int, ...]] = {
    "as-it-lies": (0,),
    "half-turn": (2,),
    "mirrored": (4, 6),
    "quarter-turns": (1, 3, 5, 7),
}
"""Views (``fedspect.data.views``) by group: sums are kept apart, so that the plants' pictures can say which help."""
MOST_CANDIDATES = 256
MOST_STATISTICS = 64 << 20  # bytes of one group's statistics
_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StatisticsTask(BaseModel):
    """Ask for the class statistics of a plant's training pictures."""

    model_config = _FROZEN
    kind: ClassVar[int] = 4

    run_id: RunId
    base_hash: ContentHash
    groups: Annotated[List[OrientationGroup], Field(min_length=1, max_length=4)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The run's, so that a plant keeps its trainer warm."""

    def to_bytes(self) -> bytes:
        """The message."""
        return framed(self, b"")

    @classmethod
    def from_bytes(cls, blob: bytes) -> StatisticsTask:
        """Read a message; ``UpdateFormatError`` for anything else."""
        return unframed(cls, blob, MAX_HEADER_BYTES)


class StatisticsReply(BaseModel):
    """Class statistics by orientation group, or why there are none."""

    model_config = _FROZEN
    kind: ClassVar[int] = 5

    plant: PlantName
    run_id: RunId
    groups: List[OrientationGroup] = Field(default_factory=list)
    seconds: Dict[str, float] = Field(default_factory=dict)
    remarks: Annotated[List[str], Field(max_length=20)] = Field(default_factory=list)
    error: Optional[ReplyError] = None
    payload: bytes = Field(default=b"", exclude=True, repr=False)
    """For each group the length (u32) and bytes of ``wire.to_bytes``."""

    def statistics(self, classes: int, features: int) -> Dict[str, ClassStatistics]:
        """The statistics by group; ``UpdateFormatError`` where they are not whole."""
        reader = ByteReader(memoryview(self.payload))
        found = {}
        for group in self.groups:
            (length,) = reader.unpack(LENGTH)
            found[str(group)] = wire.from_bytes(bytes(reader.take(length)), classes, features)
        reader.end()
        return found

    def to_bytes(self) -> bytes:
        """The message."""
        return framed(self, self.payload)

    @classmethod
    def from_bytes(cls, blob: bytes, max_bytes: int) -> StatisticsReply:
        """Read a message; ``UpdateFormatError`` for anything else."""
        return unframed(cls, blob, max_bytes)


class ScoreTask(BaseModel):
    """Ask for scores of candidates on a plant's evaluation pictures."""

    model_config = _FROZEN
    kind: ClassVar[int] = 6

    run_id: RunId
    base_hash: ContentHash
    classes: Annotated[int, Field(ge=1, le=MAX_CLASSES)]
    features: Annotated[int, Field(ge=1, le=wire.MOST_FEATURES)]
    candidates: Annotated[int, Field(ge=1, le=MOST_CANDIDATES)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    measures_distance: bool = False
    """Whether the payload ends with whitening, centre and means of the last candidate."""
    payload: bytes = Field(default=b"", exclude=True, repr=False)
    """Float32: weight (K, D) and bias (K,) of each candidate."""

    @classmethod
    def of(
        cls,
        run_id: str,
        base_hash: str,
        seed: int,
        candidates: Sequence[LinearScores],
        chosen: Optional[Discriminant] = None,
    ) -> ScoreTask:
        """The task for these candidates; ``chosen`` belongs to the last of them."""
        parts = [part for each in candidates for part in (each.weight, each.bias)]
        if chosen is not None:
            parts += [chosen.whitening, chosen.centre, chosen.means, chosen.bias]
        classes, features = candidates[0].weight.shape
        payload = b"".join(np.ascontiguousarray(part, dtype="<f4").tobytes() for part in parts)
        return cls(
            run_id=run_id,
            base_hash=base_hash,
            seed=seed,
            classes=classes,
            features=features,
            candidates=len(candidates),
            measures_distance=chosen is not None,
            payload=payload,
        )

    def read(self) -> Tuple[List[LinearScores], Optional[Discriminant]]:
        """The candidates, and the last one whole where distances are asked for.

        Raises:
            UpdateFormatError: the payload has another length, or values that are not finite.

        """
        reader, classes, features = ByteReader(memoryview(self.payload)), self.classes, self.features

        def array(*shape: int) -> np.ndarray:
            values = reader.array("<f4", int(np.prod(shape))).astype(np.float64).reshape(shape)
            if not np.isfinite(values).all():
                raise damaged("a candidate holds values that are not finite")
            return values

        linear = [LinearScores(array(classes, features), array(classes)) for _ in range(self.candidates)]
        chosen = None
        if self.measures_distance:
            whitening, centre = array(features, features), array(features)
            chosen = Discriminant(whitening, centre, array(classes, features), array(classes))
        reader.end()
        return linear, chosen

    def to_bytes(self) -> bytes:
        """The message."""
        return framed(self, self.payload)

    @classmethod
    def from_bytes(cls, blob: bytes, max_bytes: int) -> ScoreTask:
        """Read a message; ``UpdateFormatError`` for anything else."""
        return unframed(cls, blob, max_bytes)


class ScoreReply(BaseModel):
    """Scores on a plant's evaluation pictures, or why there are none."""

    model_config = _FROZEN
    kind: ClassVar[int] = 7

    plant: PlantName
    run_id: RunId
    candidates: Annotated[int, Field(ge=0, le=MOST_CANDIDATES)] = 0
    classes: Annotated[int, Field(ge=0, le=MAX_CLASSES)] = 0
    evaluated: Count = 0
    """Evaluation pictures; 0: the plant keeps none, and there is no payload."""
    error: Optional[ReplyError] = None
    payload: bytes = Field(default=b"", exclude=True, repr=False)

    @classmethod
    def of(cls, plant: str, run_id: str, scores: Scores) -> ScoreReply:
        """The reply with these scores."""
        parts = (scores.confusion, scores.losses, scores.distances)
        return cls(
            plant=plant,
            run_id=run_id,
            candidates=len(scores.confusion),
            classes=scores.confusion.shape[1],
            evaluated=scores.pictures,
            payload=b"".join(np.ascontiguousarray(part, dtype="<i8").tobytes() for part in parts),
        )

    def scores(self) -> Scores:
        """The scores; zeros where the plant has no evaluation pictures. ``UpdateFormatError`` if cut."""
        shapes = (
            (self.candidates, self.classes, self.classes),
            (self.candidates, len(TEMPERATURES)),
            (BINS,),
        )
        reader = ByteReader(memoryview(self.payload))
        parts = [reader.array("<i8", int(np.prod(shape))).astype(np.int64).reshape(shape) for shape in shapes]
        reader.end()
        return Scores(*parts)

    def to_bytes(self) -> bytes:
        """The message."""
        return framed(self, self.payload)

    @classmethod
    def from_bytes(cls, blob: bytes, max_bytes: int) -> ScoreReply:
        """Read a message; ``UpdateFormatError`` for anything else."""
        return unframed(cls, blob, max_bytes)


def packed(parts: Mapping[str, ClassStatistics]) -> bytes:
    """The payload of a ``StatisticsReply`` with these groups, in their order."""
    blobs = [wire.to_bytes(part) for part in parts.values()]
    return b"".join(LENGTH.pack(len(blob)) + blob for blob in blobs)
