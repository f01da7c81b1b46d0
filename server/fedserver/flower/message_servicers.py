"""gRPC servicers of the SuperLink for whole messages: nodes on the Fleet API, the ServerApp on the ServerAppIo API.

Both are Flower's, with ``PullMessages`` and ``PushMessages`` over ``MessageQueue``. They use Flower's own messages:

* A node's ``PullMessagesRequest.message_ids`` are messages that it gave up, which are not offered again. The answer
  holds one message with its content, or none, and in ``reconnect`` the milliseconds after which to ask again.
* Of several messages that a ServerApp pushes, those without content have the first one's: the same task for many
  plants travels and is kept once.
"""

from __future__ import annotations

import threading
from typing import Any, cast

import grpc
from flwr.common.constant import SUPERLINK_NODE_ID, Status
from flwr.common.message import make_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.appio_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
    Reconnect,
)
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.server.superlink.serverappio.serverappio_servicer import (
    ServerAppIoServicer,
    _get_authenticated_serverapp_run_id,
)
from flwr.server.superlink.utils import abort_grpc_context, check_abort

from fedserver.flower.message_queue import MessageQueue
from fedserver.flower.transport import MOST_REPLIES

DELIVERIES = 16
QUEUED = 300
"""Milliseconds after which a node asks again that has a message and no turn."""
NOT_RUNNING = [Status.PENDING, Status.STARTING, Status.FINISHED]


class FleetMessages(FleetServicer):
    """The Fleet API. Flower's interceptor has seen that a request's node is the one whose key signed the call.

    A message is in memory once more for each node that it is on its way to, so only so many get one at once.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._deliveries = threading.BoundedSemaphore(DELIVERIES)

    def PullMessages(  # noqa: N802  # Flower's name
        self, request: PullMessagesRequest, context: grpc.ServicerContext
    ) -> PullMessagesResponse:
        """The node's next message, whole."""
        queue = cast(MessageQueue, self.state_factory.state())
        queue.heard_of(request.node.node_id)
        message = queue.next_message(request.node.node_id, request.message_ids)
        if message is None:
            return PullMessagesResponse(reconnect=Reconnect(reconnect=round(1000 * queue.ask_again_in())))
        if not self._deliveries.acquire(blocking=False):
            return PullMessagesResponse(reconnect=Reconnect(reconnect=QUEUED))
        if not context.add_callback(self._deliveries.release):  # the call is over already
            self._deliveries.release()
        return PullMessagesResponse(messages_list=[message_to_proto(message)])

    def PushMessages(  # noqa: N802
        self, request: PushMessagesRequest, context: grpc.ServicerContext
    ) -> PushMessagesResponse:
        """A node's reply, whole."""
        queue = cast(MessageQueue, self.state_factory.state())
        if len(request.messages_list) != 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not one message")
        message = message_from_proto(request.messages_list[0])
        if message.metadata.src_node_id != request.node.node_id:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a reply in another node's name")
        over = check_abort(message.metadata.run_id, NOT_RUNNING, queue)
        if over:
            abort_grpc_context(over, context)
        return PushMessagesResponse(results={str(queue.store_message_res(message)): 0})


class ServerAppMessages(ServerAppIoServicer):
    """The ServerAppIo API."""

    def PushMessages(  # noqa: N802
        self, request: PushAppMessagesRequest, context: grpc.ServicerContext
    ) -> PushAppMessagesResponse:
        """Queue the run's messages."""
        queue = cast(MessageQueue, self.state_factory.state())
        run_id = _get_authenticated_serverapp_run_id(context)
        content = message_from_proto(request.messages_list[0]).content
        identities = []
        for proto in request.messages_list:
            message = make_message(metadata=metadata_from_proto(proto.metadata), content=content)
            if message.metadata.run_id != run_id or message.metadata.src_node_id != SUPERLINK_NODE_ID:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a message of another run")
            identities.append(queue.store_message_ins(message) or "")
        return PushAppMessagesResponse(message_ids=identities)

    def PullMessages(  # noqa: N802
        self, request: PullAppMessagesRequest, context: grpc.ServicerContext
    ) -> PullAppMessagesResponse:
        """A few of the replies that are here."""
        queue = cast(MessageQueue, self.state_factory.state())
        _get_authenticated_serverapp_run_id(context)
        replies = queue.replies(request.message_ids, MOST_REPLIES)
        return PullAppMessagesResponse(messages_list=[message_to_proto(reply) for reply in replies])
