"""Envelope: a body of bytes in Flower's messages, the server's end of ``fedclient.node.flower.envelope``."""

from __future__ import annotations

from flwr.common import Array, ArrayRecord, Message, RecordDict
from flwr.server.superlink.linkstate.utils import (
    MESSAGE_UNAVAILABLE_ERROR_REASON,
    NODE_UNAVAILABLE_ERROR_REASON,
    REPLY_MESSAGE_UNAVAILABLE_ERROR_REASON,
)

from fedspect.errors import UpdateFormatError
from fedspect.protocol.messages import BODY, BYTES, BYTES_STYPE

IN_OUR_WORDS = {
    MESSAGE_UNAVAILABLE_ERROR_REASON: "no answer came in time",
    REPLY_MESSAGE_UNAVAILABLE_ERROR_REASON: "its answer came too late",
    NODE_UNAVAILABLE_ERROR_REASON: "it went offline",
}


def content_with(body: bytes) -> RecordDict:
    """The content of a message that carries ``body``; several messages may share it."""
    array = Array(dtype="uint8", shape=(len(body),), stype=BYTES_STYPE, data=body)
    return RecordDict({BODY: ArrayRecord({BYTES: array})})


def take_body(message: Message) -> bytes:
    """Take the bytes that a plant's answer carries out of it.

    Flower's records refer to themselves: one that still held the bytes would keep them for a while.

    Raises:
        UpdateFormatError: the answer is of another form.

    """
    record = message.content.array_records.get(BODY)
    if record is None or set(record) != {BYTES} or record[BYTES].stype != BYTES_STYPE:
        raise UpdateFormatError(
            "an answer has no body of ours",
            seen=", ".join(sorted(message.content)) or "nothing",
            accepted=f"one record {BODY} with one array {BYTES}",
            remedy="bring both sides to the same version of Fedspect",
        )
    body = record[BYTES].data
    record.clear()
    return body


def failure_of(message: Message) -> str:
    """The reason of an answer that is an error; for what its database does not know any more Flower has its own."""
    reason = (message.error.reason or "").strip()
    return IN_OUR_WORDS.get(reason, reason) or f"Flower's error {message.error.code} without a reason"
