"""Round messages: task and reply, and a plant's description, as a checked JSON header and payload bytes.

A round is one exchange. The server sends a ``RoundTask``: evaluate this head, train it, answer. The plant
answers with a ``RoundReply``, always: when the work failed, the reply says why. Neither side believes a
length before it was checked against a limit of its own.

Layout: magic (4 bytes), format version (1), kind (1), header length (u32), payload length (u64), CRC-32 of
all the rest (u32), header (JSON, UTF-8), payload. Numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, ClassVar, Dict, List, Optional, Type, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json
from typing_extensions import Annotated, Literal, Self

from fedspect.errors import FedspectError, UpdateFormatError
from fedspect.protocol.versions import BatchNorm
from fedspect.update.byte_reader import damaged
from fedspect.update.encoding import DEFAULT_DENSITY, DEFAULT_ENCODING, EncodingName

MAGIC = b"FSPX"
FORMAT_VERSION = 1
FRAME = struct.Struct("<4sBBIQ")
CHECKSUM = struct.Struct("<I")
MAX_HEADER_BYTES = 1 << 20
DEFAULT_MAX_BYTES = 64 << 20
"""A limit for readers that do not know the head yet; ``encoding.largest_message`` gives a tighter one."""
MAX_CLASSES = 1000

ContentHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
PlantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ClassName = Annotated[str, Field(min_length=1, max_length=128)]
RoundNumber = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Density = Annotated[float, Field(gt=0.0, le=1.0)]

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_bytes="base64")


class RoundTask(BaseModel):
    """What a plant is asked to do in one round."""

    model_config = _FROZEN
    kind: ClassVar[int] = 1

    run_id: RunId
    """The run, as the server's store names it; it survives restarts of the server."""
    round: RoundNumber
    total_rounds: RoundNumber
    """How many rounds the run is planned for: the learning rate falls over all of them."""
    base_hash: ContentHash
    """The content hash of the base model that the plant must hold."""
    version: ContentHash
    """The hash (``schema.version_of``) of the head to work from, after the payload was applied."""
    payload_kind: Literal["full", "change", "none"]
    """A whole head, changes against ``holds``, or nothing because the plant holds ``version``."""
    holds: Optional[ContentHash] = None
    """The version that the changes are against."""
    encoding: EncodingName = "float32"
    """The payload's encoding; a whole head is always float32."""
    reply_encoding: EncodingName = DEFAULT_ENCODING
    """How the plant encodes its change."""
    reply_density: Density = DEFAULT_DENSITY
    """The share of values that ``sparse-int8`` sends."""
    local_epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Epochs of this round's training."""
    learning_rate: Optional[Annotated[float, Field(gt=0.0, le=100.0)]] = None
    """The rate at the run's start; the plant's own setting when absent."""
    proximal_mu: Annotated[float, Field(ge=0.0, le=1e6)] = 0.0
    """FedProx's weight of the distance to the received head; 0 turns it off."""
    batch_norm: BatchNorm = "average"
    """Whether running statistics travel, or stay with each plant (FedBN)."""
    evaluate: bool = True
    """Whether to evaluate the received head on the plant's evaluation pictures."""
    train: bool = True
    """Whether to train; a last exchange may only evaluate."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """What the plant derives its round's randomness from."""
    payload: bytes = Field(default=b"", exclude=True, repr=False)

    @model_validator(mode="after")
    def _payload_fits_its_kind(self) -> Self:
        if (self.payload_kind == "none") != (not self.payload):
            raise ValueError(f"a task of kind {self.payload_kind} with {len(self.payload)} bytes of payload")
        if (self.payload_kind == "change") != (self.holds is not None):
            raise ValueError("a task names the version it changes exactly when its payload is a change")
        return self

    def to_bytes(self) -> bytes:
        """The message."""
        return framed(self, self.payload)

    @classmethod
    def from_bytes(cls, blob: bytes, max_bytes: int = DEFAULT_MAX_BYTES) -> RoundTask:
        """Read a message of at most ``max_bytes``; ``UpdateFormatError`` for anything else."""
        return unframed(cls, blob, max_bytes)


class ReplyError(BaseModel):
    """Why a plant's work failed, without a traceback."""

    model_config = _FROZEN

    kind: Annotated[str, Field(max_length=64)]
    """The error's class, for example ``DiskFullError``."""
    exit_code: Annotated[int, Field(ge=0, le=255)] = 1
    message: Annotated[str, Field(max_length=2000)]

    @classmethod
    def of(cls, error: BaseException) -> ReplyError:
        """The error as the server may see it."""
        code = error.exit_code if isinstance(error, FedspectError) else 1
        return cls(kind=type(error).__name__[:64], exit_code=code, message=(str(error) or repr(error))[:2000])


class RoundReply(BaseModel):
    """What a plant answers: its encoded change with counts and metrics, or the reason why there is none."""

    model_config = _FROZEN
    kind: ClassVar[int] = 2

    plant: PlantName
    run_id: RunId
    round: RoundNumber
    base_hash: ContentHash
    version: ContentHash
    """The version that the change is against: the task's."""
    holds: Optional[ContentHash] = None
    """The version that the plant holds now, which the next task may change."""
    encoding: EncodingName = "float32"
    num_examples: Count = 0
    """Pictures trained on: the weight in the average."""
    counts: Annotated[Dict[ClassName, Count], Field(max_length=MAX_CLASSES)] = Field(default_factory=dict)
    """Training pictures by class."""
    evaluated: Count = 0
    """Evaluation pictures."""
    metrics: Annotated[Dict[str, float], Field(max_length=256)] = Field(default_factory=dict)
    """Of the received head on the plant's evaluation pictures, before training: accuracy, loss and so on."""
    confusion: Optional[Annotated[List[List[Count]], Field(max_length=MAX_CLASSES)]] = None
    """Evaluation pictures by true class (rows) and answered class (columns), in the federation's order."""
    train_loss: Optional[float] = None
    seconds: Dict[str, float] = Field(default_factory=dict)
    """Wall-clock seconds by part of the work: ``decode``, ``evaluate``, ``train``, ``encode``, ``total``."""
    remarks: Annotated[List[Annotated[str, Field(max_length=500)]], Field(max_length=20)] = Field(
        default_factory=list
    )
    """What a person should know although the work was done: a cache that could not be written and so on."""
    error: Optional[ReplyError] = None
    payload: bytes = Field(default=b"", exclude=True, repr=False)

    @model_validator(mode="after")
    def _is_a_result_or_an_error(self) -> Self:
        if self.error is not None and self.payload:
            raise ValueError("a reply with an error carries no update")
        return self

    @property
    def trained(self) -> bool:
        """Whether the reply carries an update."""
        return bool(self.payload)

    @property
    def payload_bytes(self) -> int:
        """The update's size in bytes."""
        return len(self.payload)

    def to_bytes(self) -> bytes:
        """The message."""
        return framed(self, self.payload)

    @classmethod
    def from_bytes(cls, blob: bytes, max_bytes: int = DEFAULT_MAX_BYTES) -> RoundReply:
        """Read a message of at most ``max_bytes``; ``UpdateFormatError`` for anything else."""
        return unframed(cls, blob, max_bytes)


class PlantDescription(BaseModel):
    """What a plant says about itself when it joins, and whenever the server asks."""

    model_config = _FROZEN
    kind: ClassVar[int] = 3

    plant: PlantName
    software: Annotated[str, Field(max_length=64)]
    """Fedspect's version on the plant."""
    classes: Annotated[List[ClassName], Field(min_length=1, max_length=MAX_CLASSES)]
    """The federation's classes as the plant knows them."""
    counts: Annotated[Dict[ClassName, Count], Field(max_length=MAX_CLASSES)] = Field(default_factory=dict)
    """Training pictures by class."""
    evaluation_counts: Annotated[Dict[ClassName, Count], Field(max_length=MAX_CLASSES)] = Field(
        default_factory=dict
    )
    base_hash: Optional[ContentHash] = None
    """The base model on the plant's disk."""
    holds: Optional[ContentHash] = None
    """The version of the head on the plant's disk."""

    def to_bytes(self) -> bytes:
        """The message."""
        return framed(self, b"")

    @classmethod
    def from_bytes(cls, blob: bytes, max_bytes: int = MAX_HEADER_BYTES + 64) -> PlantDescription:
        """Read a message of at most ``max_bytes``; ``UpdateFormatError`` for anything else."""
        return unframed(cls, blob, max_bytes)


Message = TypeVar("Message", bound=BaseModel)


def framed(message: Any, payload: bytes) -> bytes:
    """The bytes of a message whose class has a number ``kind``."""
    header = message.model_dump_json().encode("utf-8")
    if len(header) > MAX_HEADER_BYTES:
        raise UpdateFormatError(
            "a message's header is too long", seen=len(header), accepted=f"at most {MAX_HEADER_BYTES} bytes"
        )
    frame = FRAME.pack(MAGIC, FORMAT_VERSION, message.kind, len(header), len(payload))
    checksum = zlib.crc32(payload, zlib.crc32(header, zlib.crc32(frame)))
    return b"".join((frame, CHECKSUM.pack(checksum), header, payload))


def kind_of(blob: bytes) -> Optional[int]:
    """The number of a message's kind; None where the bytes are no message."""
    return blob[5] if len(blob) > 5 and bytes(blob[:4]) == MAGIC else None


def unframed(form: Type[Message], blob: bytes, max_bytes: int) -> Message:
    """Read a message of this kind; ``UpdateFormatError`` for anything else."""
    if len(blob) > max_bytes:
        raise UpdateFormatError(
            "a message is larger than any may be here",
            seen=f"{len(blob)} bytes",
            accepted=f"{max_bytes} bytes",
        )
    start = FRAME.size + CHECKSUM.size
    if len(blob) < start or bytes(blob[:4]) != MAGIC:
        raise damaged("it is not one of Fedspect's", seen=f"{len(blob)} bytes starting {bytes(blob[:4])!r}")
    view = memoryview(blob)
    _, version, kind, header_length, payload_length = FRAME.unpack_from(view)
    if version != FORMAT_VERSION:
        raise UpdateFormatError(
            "a message has another format version",
            seen=version,
            accepted=str(FORMAT_VERSION),
            remedy="bring both sides to the same version of Fedspect",
        )
    wanted = form.kind  # type: ignore[attr-defined]  # every message has one
    if kind != wanted:
        raise damaged("it is of another kind", seen=kind, accepted=wanted)
    if header_length > MAX_HEADER_BYTES or start + header_length + payload_length != len(view):
        raise damaged(
            "its lengths do not add up", seen=f"{header_length} and {payload_length} in {len(view)} bytes"
        )
    (checksum,) = CHECKSUM.unpack_from(view, FRAME.size)
    if checksum != zlib.crc32(view[start:], zlib.crc32(view[: FRAME.size])):
        raise damaged("its checksum is another")
    payload = bytes(view[start + header_length :])
    try:
        fields = from_json(bytes(view[start : start + header_length]), allow_inf_nan=False)
        if not isinstance(fields, dict) or "payload" in fields:
            raise damaged("its header is not an object of fields")
        return form.model_validate({**fields, "payload": payload} if payload else fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "header"
        raise damaged(f"its header is not valid at {place}", seen=first["msg"]) from None
    except ValueError as error:
        raise damaged("its header is not JSON", seen=error) from None
