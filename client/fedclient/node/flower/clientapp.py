"""Flower's ClientApp around a message handler, for Flower's own simulation."""

from __future__ import annotations

from collections.abc import Callable

from flwr.clientapp import ClientApp
from flwr.common import Context, Message

from fedclient.node.flower.envelope import Handler, reply_to
from fedspect.protocol.messages import DESCRIBE, NOTICE


def build_client_app(handler_for: Callable[[Context], Handler]) -> ClientApp:
    """A ClientApp whose every message is answered by the handler that is found for its context."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        return reply_to(message, handler_for(context))

    app.train()(answer)
    app.query(DESCRIBE.partition(".")[2])(answer)
    app.query(NOTICE.partition(".")[2])(answer)
    return app
