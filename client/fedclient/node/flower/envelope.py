"""Envelope: a body of bytes in Flower's messages, the plant's end of ``fedserver.flower.envelope``."""

from __future__ import annotations

from collections.abc import Callable

from flwr.common import Array, ArrayRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from fedclient.node.message_handler import Answer, failed
from fedspect.errors import UpdateFormatError
from fedspect.protocol.messages import BODY, BYTES, BYTES_STYPE

Handler = Callable[[str, bytes], Answer]
"""Answers a message of a kind with a body, as ``fedclient.node.message_handler.MessageHandler`` does."""


def content_with(body: bytes) -> RecordDict:
    """The content of a message that carries ``body``."""
    array = Array(dtype="uint8", shape=(len(body),), stype=BYTES_STYPE, data=body)
    return RecordDict({BODY: ArrayRecord({BYTES: array})})


def body_of(content: RecordDict) -> bytes:
    """The bytes that ``content_with`` packed.

    Raises:
        UpdateFormatError: the content is of another form.

    """
    record = content.array_records.get(BODY)
    if record is None or set(record) != {BYTES} or record[BYTES].stype != BYTES_STYPE:
        raise UpdateFormatError(
            "a message has no body of ours",
            seen=", ".join(sorted(content)) or "nothing",
            accepted=f"one record {BODY} with one array {BYTES}",
            remedy="bring both sides to the same version of Fedspect",
        )
    return record[BYTES].data


def reply_to(message: Message, handler: Handler) -> Message:
    """Flower's reply with what the handler answers."""
    try:
        body = body_of(message.content)
    except UpdateFormatError as error:
        answer = failed(error)
    else:
        answer = handler(message.metadata.message_type, body)
    if answer.failure is not None:
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, answer.failure), reply_to=message)
    return Message(content_with(answer.body), reply_to=message)
