"""Fleet API port with bounds: authenticate before reading, request timeouts, concurrency limits.

Flower 1.30 makes room for a thousand calls at once, a thread each, takes them all from one connection if it likes,
and reads what a call brings before it looks at who calls. ``bounded_server`` stands in for the function by which
Flower makes that server: fewer threads, few calls on one connection, and a call's content is read only when its key
is a plant's, within a time, and only from so many calls of one plant at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from flwr.common.constant import PUBLIC_KEY_HEADER
from flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor import NodeAuthServerInterceptor
from flwr.supercore.utils import get_metadata_bytes

from fedserver.enrolment.rate_limits import ConcurrencyLimit
from fedspect.protocol.limits import LARGEST_FLEET_MESSAGE, grpc_options, ping_options

CALLS_AT_ONCE = 256  # and threads: heartbeats must not wait behind uploads; deploy/server allows 512 threads
CALLS_OF_ONE_CONNECTION = 16
CALLS_OF_ONE_PLANT = 8
CONTENT_WITHIN = 600.0  # seconds; a plant's answer comes in one call, over whatever line the plant has

logger = logging.getLogger("fedserver.flower")

KeyKnown = Callable[[bytes], bool]


def bounded_server(
    servicer_and_add_fn: tuple[Any, Callable[[Any, grpc.Server], None]],
    server_address: str,
    *,
    max_message_length: int,
    certificates: tuple[bytes, bytes, bytes],
    interceptors: Sequence[grpc.ServerInterceptor],
) -> grpc.Server:
    """As Flower's ``generic_create_grpc_server``, for the Fleet API; Flower's ``max_message_length`` is too large."""
    flower = next(one for one in interceptors if isinstance(one, NodeAuthServerInterceptor))

    def key_known(key: bytes) -> bool:
        return flower.state_factory.state().get_node_id_by_public_key(key) is not None

    server = grpc.server(
        ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="fleet"),
        maximum_concurrent_rpcs=CALLS_AT_ONCE,
        interceptors=[AuthenticateFirst(key_known), *interceptors],
        options=[
            *grpc_options(LARGEST_FLEET_MESSAGE),
            *ping_options(),
            ("grpc.max_concurrent_streams", CALLS_OF_ONE_CONNECTION),
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.keepalive_time_ms", 210_000),
            ("grpc.http2.max_pings_without_data", 0),
        ],
    )
    servicer, add_servicer = servicer_and_add_fn
    add_servicer(servicer, server)
    _authority, certificate, private_key = certificates
    port = server.add_secure_port(server_address, grpc.ssl_server_credentials([(private_key, certificate)]))
    server.bound_address = f"{server_address.rpartition(':')[0]}:{port}"
    return server


class AuthenticateFirst(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Reads what a call brings only when a plant calls. Flower's own checks come before and after."""

    def __init__(self, key_known: KeyKnown) -> None:
        self._key_known = key_known
        self._at_once = ConcurrencyLimit(CALLS_OF_ONE_PLANT)
        self._timeouts = RequestTimeouts(CONTENT_WITHIN)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Flower's handler of the call, which gets its request as late as can be."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        key = get_metadata_bytes(handler_call_details.invocation_metadata, PUBLIC_KEY_HEADER) or b""

        def served(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            if handler.request_deserializer is None:  # Flower refuses the caller and would read for nothing
                return handler.unary_unary(None, context)
            if not self._key_known(key):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "this key is no plant's")
            with self._at_once.one(key.hex()) as allowed:
                if not allowed:
                    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls of this plant at once")
                with self._timeouts.with_call(context):
                    request = next(requests)
                return _answered(handler, request, context)

        return grpc.stream_unary_rpc_method_handler(
            served, handler.request_deserializer, handler.response_serializer
        )


def _answered(handler: Any, request: Any, context: grpc.ServicerContext) -> Any:
    """What Flower's handler answers. It fails over a message of a run that it has never heard of, as after a restart:
    that is a line in the log, not a traceback, and the plant hears what it would have heard.
    """
    try:
        return handler.unary_unary(request, context)
    except Exception as error:
        if context.code() is None:  # else Flower refused the call, and says so by raising too
            logger.warning("a %s could not be answered: %s", type(request).__name__, error)
            context.abort(grpc.StatusCode.UNKNOWN, f"Exception calling application: {error}")
        raise


class RequestTimeouts:
    """Ends calls whose content does not come within ``seconds``; one thread watches them all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[int, tuple[float, grpc.ServicerContext]] = {}
        threading.Thread(target=self._watch, name="impatience", daemon=True).start()

    @contextmanager
    def with_call(self, context: grpc.ServicerContext) -> Iterator[None]:
        """While the ``with`` block runs, the call's time counts."""
        self._waiting[id(context)] = (time.monotonic() + self._seconds, context)
        try:
            yield
        finally:
            del self._waiting[id(context)]

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            now = time.monotonic()
            for until, context in list(self._waiting.values()):
                if until < now:
                    context.cancel()
