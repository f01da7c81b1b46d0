"""The port of the enrolment service: TLS, how large a message may be, how many calls are answered at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc

from fedserver.authority import Authority
from fedserver.enrolment import EnrolmentService
from fedspect.errors import FederationError
from fedspect.protocol.limits import LARGEST_ENROLMENT_MESSAGE, grpc_options
from fedspect.protocol.names import join_address
from fedspect.protocol.services import ENROLMENT, handler

CALLS_AT_ONCE = 32


class EnrolmentServer:
    """The service on its port; ``port`` 0 lets the system pick one."""

    def __init__(self, service: EnrolmentService, authority: Authority, bind: str, port: int) -> None:
        self._server = grpc.server(
            ThreadPoolExecutor(8, thread_name_prefix="enrolment"),
            maximum_concurrent_rpcs=CALLS_AT_ONCE,
            options=[*grpc_options(LARGEST_ENROLMENT_MESSAGE), ("grpc.so_reuseport", 0)],
        )
        self._server.add_generic_rpc_handlers((handler(ENROLMENT, service),))
        credentials = grpc.ssl_server_credentials(
            [(authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes())]
        )
        try:
            self.port = int(self._server.add_secure_port(join_address(bind, port), credentials))
        except RuntimeError as error:
            raise FederationError(
                "cannot listen there",
                seen=join_address(bind, port),
                remedy="end the program that uses it, or set another enrolment_port in fedserver.toml",
            ) from error

    def start(self) -> None:
        """Answer from now on."""
        self._server.start()

    def stop(self) -> None:
        """Answer no more; calls under way have two seconds."""
        self._server.stop(2.0).wait()
