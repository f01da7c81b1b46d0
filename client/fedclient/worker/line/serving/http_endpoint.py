"""HTTP endpoint beside gRPC: liveness, readiness and Prometheus metrics.

::

    /health/live, /v2/health/live      200 as long as the process answers
    /health/ready, /v2/health/ready    200 when pictures can be sent, else 503 and why
    /metrics                           Prometheus' text

It knows GET only, reads no body, and listens on the device itself unless told otherwise.
"""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Tuple

from fedspect.errors import WorkerError
from fedspect.protocol.names import join_address

SLOWEST = 10.0  # seconds that a client may take for its request

Answer = Callable[[str], Tuple[int, str, bytes]]


def serve_http(address: Tuple[str, int], answer: Answer) -> ThreadingHTTPServer:
    """Answer GET in threads; ``answer(path)`` is status, content type and body. Port 0: one that is free.

    Raises:
        WorkerError: the address cannot be had.

    """

    class Handler(BaseHTTPRequestHandler):
        timeout = SLOWEST
        server_version = "fedspect"
        sys_version = ""

        def do_GET(self) -> None:
            status, kind, body = answer(self.path.split("?", 1)[0])
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing: a probe comes every few seconds."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET

    try:
        server = Server(address, Handler)
    except OSError as error:
        raise WorkerError(
            "the address for health and metrics cannot be had",
            seen=f"{join_address(*address)}: {error.strerror}",
            remedy="choose another with --http HOST:PORT, or none with --no-http",
        ) from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.1,), name="http", daemon=True).start()
    return server
