"""Downlink encoding: a plant gets the change against the version that it holds, or the whole head.

What the server *serves* is always what plants can rebuild to the last bit: the head served before plus the
decoded change, never the exact new head. What the encoding lost is kept and sent with a later change, so
nothing drifts (decision 0004). A change is a chain of messages, one for each version since the one that the
plant holds: a plant that missed a round needs no whole head. When the chain would weigh more than the head,
the head goes.

A chain is: number of messages (u8), then each message's length (u32) and bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import List, Mapping, Optional, Sequence, Tuple

import numpy as np
from typing_extensions import Literal

from fedspect.errors import UpdateRefusedError
from fedspect.update.byte_reader import ByteReader, damaged
from fedspect.update.change import apply_change, change_between, sum_of
from fedspect.update.encoding import DEFAULT_DENSITY, LOSSLESS, decode, encode, largest_message
from fedspect.update.schema import Arrays, Schema, version_of

MAX_CHAIN = 16
_COUNT = struct.Struct("<B")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Downlink:
    """One step of the served head: the message that leads from one version to the next."""

    before: str
    after: str
    blob: bytes


@dataclass(frozen=True)
class ServedModelState:
    """The head that plants are given, its version, what is still owed to it, and the steps that led here."""

    head: Arrays
    version: str
    residual: Optional[Arrays] = None
    links: Tuple[Downlink, ...] = ()

    @classmethod
    def start(cls, head: Mapping[str, np.ndarray]) -> ServedModelState:
        """Serve a head as it is (the first round, or after a restart that kept no links)."""
        own = {name: np.array(values, dtype=np.float32) for name, values in head.items()}
        return cls(own, version_of(own))

    def advance(
        self, target: Mapping[str, np.ndarray], *, encoding: str, density: float = DEFAULT_DENSITY
    ) -> ServedModelState:
        """Serve the next head: as near to ``target`` as one message of this encoding leads.

        With float32 the target itself is served, to the last bit; plants are then sent whole heads.

        Args:
            target: what aggregation made of the head that was served (what is still owed comes on top).
            encoding: as for ``encoding.encode``.
            density: as for ``encoding.encode``.

        Raises:
            UpdateFormatError: the target has other tensors or shapes.
            UpdateRefusedError: the target is not finite.

        """
        if encoding == LOSSLESS:
            return ServedModelState.start(target)
        owed = sum_of(change_between(self.head, target), self.residual)
        blob = encode(owed, encoding=encoding, density=density)
        head = apply_change(self.head, decode(blob, Schema.of(owed)))
        residual = change_between(change_between(self.head, head), owed)
        version = version_of(head)
        links = (*self.links, Downlink(self.version, version, blob))[-MAX_CHAIN:]
        return ServedModelState(head, version, residual, links)

    def without_links(self) -> ServedModelState:
        """The same head, with whole heads for every plant that does not hold it."""
        return replace(self, links=())

    def payload_for(self, holds: Optional[str]) -> Tuple[Literal["full", "change", "none"], bytes]:
        """The kind and bytes of a task's payload for a plant that holds this version (or none)."""
        if holds == self.version:
            return "none", b""
        chain = self._chain_from(holds)
        if chain:
            packed = pack_chain([link.blob for link in chain])
            if len(packed) < 4 * sum(values.size for values in self.head.values()):
                return "change", packed
        return "full", encode(self.head, encoding=LOSSLESS)

    def _chain_from(self, holds: Optional[str]) -> Sequence[Downlink]:
        for place in range(len(self.links) - 1, -1, -1):
            if self.links[place].before == holds:
                return self.links[place:]
        return ()


def pack_chain(blobs: Sequence[bytes]) -> bytes:
    """Messages one after the other, each with its length."""
    return _COUNT.pack(len(blobs)) + b"".join(_LENGTH.pack(len(blob)) + blob for blob in blobs)


def unpack_chain(payload: bytes, schema: Schema) -> List[bytes]:
    """The messages of a chain.

    Raises:
        UpdateFormatError: it is not one.

    """
    reader, limit = ByteReader(memoryview(payload)), largest_message(schema)
    (count,) = reader.unpack(_COUNT)
    if not 1 <= count <= MAX_CHAIN:
        raise damaged("a chain has an impossible length", seen=count, accepted=f"1 to {MAX_CHAIN} messages")
    blobs = []
    for _ in range(count):
        (length,) = reader.unpack(_LENGTH)
        if length > limit:
            raise damaged("a message of a chain is too long", seen=length, accepted=f"at most {limit} bytes")
        blobs.append(bytes(reader.take(length)))
    reader.end()
    return blobs


def receive_head(
    kind: str,
    payload: bytes,
    *,
    version: str,
    schema: Schema,
    held: Optional[Mapping[str, np.ndarray]] = None,
) -> Arrays:
    """The plant's side: the head that a task's payload leads to, proved by its version.

    Args:
        kind: "full", "change" or "none".
        payload: the task's.
        version: the hash that the head must have.
        schema: the plant's own.
        held: the head that a change is against, or that "none" means.

    Raises:
        UpdateFormatError: the payload is damaged or made for another head. UpdateRefusedError: the plant
        does not hold what the change is against, or the result has another hash.

    """
    if kind == "full":
        head = decode(payload, schema)
    elif held is None:
        raise UpdateRefusedError(
            "the plant does not hold the version that it was sent a change for",
            remedy="nothing; the server sends the whole head in the next round",
        )
    else:
        schema.check(held, "the head that the plant holds")
        head = {name: np.array(held[name], dtype=np.float32) for name in schema.names}
        for blob in unpack_chain(payload, schema) if kind == "change" else ():
            head = apply_change(head, decode(blob, schema.changing))
    seen = version_of(head)
    if seen != version:
        raise UpdateRefusedError(
            "the head that was received is not the one that was announced",
            seen=seen[:12],
            accepted=version[:12],
            remedy="nothing; the server sends the whole head in the next round",
        )
    if not all(np.isfinite(values).all() for values in head.values()):
        raise UpdateRefusedError("the head that was received holds values that are not finite")
    return head
