"""gRPC server of the enrolment service: TLS, message sizes, and calls under way per connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc.aio

from fedserver.enrolment.authority import Authority
from fedserver.enrolment.grpc_service import open_handler
from fedserver.enrolment.service import EnrolmentService
from fedspect.errors import FederationError
from fedspect.protocol.grpc_services import ENROLMENT
from fedspect.protocol.limits import LARGEST_ENROLMENT_MESSAGE, grpc_options, ping_options
from fedspect.protocol.names import join_address

THREADS = 8  # that work on requests
CALLS_AT_ONCE = 1000
LIMITS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 8),  # of one connection; more wait at the caller
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_connection_age_ms", 3_600_000),  # then a caller connects anew, which it does not notice ...
    ("grpc.max_connection_age_grace_ms", 3_600_000),  # ... unless a download goes on for longer than this
]

T = TypeVar("T")


class EnrolmentServer:
    """The service on its port; ``port`` 0 lets the system pick one."""

    def __init__(self, service: EnrolmentService, authority: Authority, bind: str, port: int) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="enrolment")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="enrolment", daemon=True)
        self._thread.start()
        credentials = grpc.ssl_server_credentials(
            [(authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes())]
        )

        async def listen() -> int:
            self._server = grpc.aio.server(
                options=[*grpc_options(LARGEST_ENROLMENT_MESSAGE), *ping_options(), *LIMITS],
                maximum_concurrent_rpcs=CALLS_AT_ONCE,
            )
            self._server.add_generic_rpc_handlers((open_handler(ENROLMENT, service, self._pool),))
            return int(self._server.add_secure_port(join_address(bind, port), credentials))

        try:
            self.port = self._run(listen())
        except RuntimeError as error:
            self._close()
            raise FederationError(
                "cannot listen there",
                seen=join_address(bind, port),
                remedy="end the program that uses it, or set another enrolment_port in fedserver.toml",
            ) from error

    def start(self) -> None:
        """Begin to answer calls."""
        self._run(self._server.start())

    def stop(self) -> None:
        """Stop answering; calls under way have two seconds."""
        if not self._loop.is_closed():
            self._run(self._server.stop(2.0))
            self._close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown(wait=False)
