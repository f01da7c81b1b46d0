"""The ClientApp: it carries bytes between Flower and a worker, and knows nothing of what they mean.

A plant's training happens elsewhere (in simulation in the same process, in a plant in the long-lived worker),
so this app stays small enough for a process that holds no torch. It answers three kinds of message:

* ``train``: one exchange of a round. The body is a ``RoundTask``, the answer's body a ``RoundReply``.
* ``query.describe``: the answer's body is a ``PlantDescription``.
* ``query.notice``: a sentence for the plant's engineer, such as why an update was refused.

A body is one ``Array`` of bytes in an ``ArrayRecord``, which Flower cuts into chunks. Its ``stype`` is our
own: the bytes are no ``.npy`` file, because numpy would believe the length that such a file claims.

A worker that fails must not take the node along: the server gets an error that names the reason instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.common import Array, ArrayRecord, Context, Message, RecordDict
from flwr.common.constant import ErrorCode

from fedspect.errors import FedspectError, UpdateFormatError, YieldedError

BODY = "body"
BYTES = "bytes"
BYTES_STYPE = "fedspect.bytes"
DESCRIBE = "describe"
NOTICE = "notice"
LONGEST_NOTICE = 4000

logger = logging.getLogger("fedclient.node")


class WorkerPort(Protocol):
    """What the node needs of a worker, wherever that runs."""

    def work(self, task: bytes) -> bytes:
        """Do a ``RoundTask`` and answer with a ``RoundReply``, both as bytes."""
        ...

    def describe(self) -> bytes:
        """A ``PlantDescription`` as bytes."""
        ...


def log_notice(text: str) -> None:
    """Put what the server says into the node's log."""
    logger.warning("the server says: %s", text)


def build_client_app(
    worker_for: Callable[[Context], WorkerPort], *, on_notice: Callable[[str], None] = log_notice
) -> ClientApp:
    """The ClientApp of a plant.

    Args:
        worker_for: finds the worker for the context of a message.
        on_notice: is given what the server has to say to the plant's engineer.

    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return _answer(message, lambda: worker_for(context).work(body_of(message.content)))

    @app.query(DESCRIBE)
    def describe(message: Message, context: Context) -> Message:
        return _answer(message, lambda: worker_for(context).describe())

    @app.query(NOTICE)
    def notice(message: Message, context: Context) -> Message:
        def hear() -> bytes:
            on_notice(body_of(message.content)[:LONGEST_NOTICE].decode("utf-8", "replace"))
            return b""

        return _answer(message, hear)

    return app


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


def _answer(message: Message, work: Callable[[], bytes]) -> Message:
    try:
        return Message(content_with(work()), reply_to=message)
    except YieldedError as error:  # the plant's own rules: said where they are looked at
        logger.info("%s", error)
        return _failure(message, error)
    except FedspectError as error:
        logger.warning("the worker did not answer: %s", error)
        return _failure(message, error)
    except Exception as error:  # whatever it is, the node lives on and the server hears of it
        logger.exception("the worker failed")
        return _failure(message, error)


def _failure(message: Message, error: Exception) -> Message:
    reason = f"{type(error).__name__}: {error}"
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason[:2000]), reply_to=message)
