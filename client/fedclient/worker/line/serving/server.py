"""Inference server process: batcher, reloader, gRPC and HTTP; it drains its requests before it ends.

The process holds a lock, so that two never answer for one plant, and writes ``line/serve.json`` once it listens: its
addresses, the version that answers, and what keeps it from another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import grpc

from fedclient.worker.deployments import Deployment
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.monitoring.metrics import Metrics
from fedclient.worker.line.monitoring.telemetry import Telemetry
from fedclient.worker.line.reload.reloader import Reloader
from fedclient.worker.line.reload.serving_status import ServingStatus
from fedclient.worker.line.review.review_heat_maps import HeatMaps
from fedclient.worker.line.review.review_queue import ReviewQueue
from fedclient.worker.line.serving.dynamic_batcher import DynamicBatcher
from fedclient.worker.line.serving.http_endpoint import serve_http
from fedclient.worker.line.serving.inference_service import InferenceService, handler
from fedclient.worker.line.serving.model_leases import ServedModel
from fedclient.worker.line.settings import LineSettings, read_settings
from fedspect.errors import SettingsError, StorageError, WorkerError
from fedspect.files import write_json
from fedspect.graceful_shutdown import stop_event
from fedspect.protocol.names import join_address

DEFAULT_ADDRESS = "127.0.0.1:8001"
DEFAULT_HTTP = "127.0.0.1:8002"
SPARE_THREADS = 16  # for health and facts beside the answers, and to refuse what finds no place
WAITING_CALLS = 1000  # for such a thread; no message of theirs is read before they have one
LARGEST_REPLY = 16 << 20

logger = logging.getLogger("fedclient.line")


@dataclass(frozen=True)
class Listening:
    """Where to listen; ``None``: not there."""

    address: Optional[str] = DEFAULT_ADDRESS
    """host:port for gRPC."""
    socket: Optional[Path] = None
    """A unix socket for gRPC."""
    http: Optional[str] = DEFAULT_HTTP
    """host:port for health and metrics."""
    certificate: Optional[Path] = None
    """PEM files of the server's certificate and key: gRPC over TLS on ``address``."""
    key: Optional[Path] = None
    clients: Optional[Path] = None
    """A PEM file with the authority of the clients' certificates: only such clients get in."""


class Server:
    """A serving process; ``start`` listens, ``stop`` drains."""

    def __init__(
        self, home: LineHome, listening: Listening, *, version: str, on_broken: Callable[[], None]
    ) -> None:
        """``on_broken``: the engine gives no answers any more. ``SettingsError``: settings that cannot be used."""
        self.home = home
        self.listening = listening
        settings = self.settings = read_settings(home.line)
        self.line = DynamicBatcher(settings.serving)
        self.metrics = Metrics()
        self.metrics.waiting.set_function(lambda: self.line.waiting)
        self.review = ReviewQueue(home.review, settings.review)
        self.telemetry = Telemetry(
            self.metrics,
            self.review,
            lambda: home.drift_watch(self.reloader.settings.drift),
            HeatMaps(home.store),
        )
        self.service = InferenceService(self.line, self.telemetry, version=version)
        self.reloader = Reloader(
            self.line,
            home.deployments,
            lambda deployment: home.open(deployment, threads=settings.serving.threads),
            home.line,
            guards=home.guards,
            on_model=self._on_model,
            on_settings=self._on_settings,
            on_broken=on_broken,
            on_status=self._on_status,
        )
        self._addresses: Dict[str, Any] = {}
        self._grpc: Optional[grpc.Server] = None
        self._http: Any = None

    def start(self) -> Dict[str, Any]:
        """Load the current deployment, listen, start the reloader. The addresses, as ``serve.json`` has them.

        Raises:
            WorkerError: an address cannot be had.
            SettingsError: certificate or key cannot be read.

        """
        self.reloader.look()
        if self.line.current is None:
            logger.warning("listening, but not ready: %s", self.reloader.status)
        listening, settings = self.listening, self.settings.serving
        options = [
            ("grpc.max_send_message_length", LARGEST_REPLY),
            ("grpc.max_receive_message_length", settings.largest_request_mib << 20),
            ("grpc.so_reuseport", 0),
        ]
        server = self._grpc = grpc.server(
            ThreadPoolExecutor(settings.clients + SPARE_THREADS, thread_name_prefix="call"),
            options=options,
            maximum_concurrent_rpcs=settings.clients + WAITING_CALLS,
        )
        server.add_generic_rpc_handlers((handler(self.service),))
        addresses: Dict[str, Any] = {"pid": os.getpid(), "since": time.time()}
        if listening.address is not None:
            addresses["address"] = _listen(server, listening.address, _credentials(listening))
            addresses["tls"] = listening.certificate is not None
        if listening.socket is not None:
            addresses["socket"] = _listen_on_socket(server, listening.socket)
        server.start()
        if listening.http is not None:
            host, port = address_of(listening.http)
            self._http = serve_http((host, port), self._http_answer)
            addresses["http"] = join_address(host, self._http.server_address[1])
        self._addresses = addresses
        self._write(self.reloader.status)
        self.reloader.start()
        return addresses

    def stop(self) -> None:
        """Refuse new requests, answer those under way within the drain time, close everything."""
        self.service.draining.set()
        self.reloader.stop()
        if self._grpc is not None:
            self._grpc.stop(self.settings.serving.drain_seconds).wait()
        self.line.close()
        self.telemetry.close()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        for path in (self.home.line / "serve.json", self.listening.socket):
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink()

    # -- parts ---------------------------------------------------------------------------------------------

    def _on_model(self, model: ServedModel, deployment: Deployment) -> None:
        self.metrics.model_replaced(model)
        self.telemetry.model_replaced(model, deployment, self.home.reference)

    def _on_settings(self, settings: LineSettings) -> None:
        self.review.settings = settings.review
        self.telemetry.settings(settings.drift)

    def _on_status(self, status: ServingStatus) -> None:
        self.metrics.problem.set(0 if status.trouble is None else 1)
        if self._addresses:  # else it does not listen yet
            try:
                self._write(status)
            except StorageError as error:
                logger.error("%s", error)

    def _write(self, status: ServingStatus) -> None:
        write_json(self.home.line / "serve.json", {**self._addresses, **status.as_dict()})

    def _http_answer(self, path: str) -> Tuple[int, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.text()
        if path in ("/health/live", "/v2/health/live"):
            return 200, plain, b"live\n"
        if path in ("/health/ready", "/v2/health/ready"):
            status = self.reloader.status
            if self.service.ready:
                return 200, plain, f"ready; {status}\n".encode()
            why = "ending" if self.service.draining.is_set() else status
            return 503, plain, f"not ready; {why}\n".encode()
        return 404, plain, b"health/live, health/ready or metrics\n"


def serve(home: LineHome, listening: Listening, *, version: str) -> None:
    """Answer until SIGTERM or Ctrl-C, then drain.

    Raises:
        AlreadyRunningError: another process answers for this plant.
        WorkerError, SettingsError: as ``Server``.
        EngineError: the engine gives no answers any more; another process may get some.

    """
    with home.occupied():
        end = stop_event(signal.SIGTERM, signal.SIGINT)
        server = Server(home, listening, version=version, on_broken=end.set)
        try:
            addresses = server.start()
            logger.info("listening: %s", _in_words(addresses))
            end.wait()
            logger.info("ending: answering what is under way")
        finally:
            server.stop()
        server.reloader.status.check()


def _in_words(addresses: Mapping[str, Any]) -> str:
    said = []
    if "address" in addresses:
        said.append(f"gRPC on {addresses['address']}{' with TLS' if addresses['tls'] else ''}")
    if "socket" in addresses:
        said.append(f"gRPC on unix:{addresses['socket']}")
    if "http" in addresses:
        said.append(f"health and metrics on http://{addresses['http']}")
    return ", ".join(said) or "nowhere"


def address_of(text: str) -> Tuple[str, int]:
    """Host and port of ``host:port``; port 0 asks for a free one.

    Raises:
        SettingsError: it is not of that form.

    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port[:6]) > 65535:
        raise SettingsError("not an address to listen on", seen=repr(text[:100]), accepted="host:port")
    return host.strip("[]"), int(port)


def _listen(server: grpc.Server, address: str, credentials: Optional[grpc.ServerCredentials]) -> str:
    host, port = address_of(address)
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        secure = credentials is not None
        bound = server.add_secure_port(text, credentials) if secure else server.add_insecure_port(text)
    except RuntimeError:
        bound = 0
    if not bound:
        raise WorkerError(
            "the address cannot be had",
            seen=address,
            remedy="another process may listen there; choose another with --address HOST:PORT",
        )
    return f"{text.rpartition(':')[0]}:{bound}"


def _listen_on_socket(server: grpc.Server, path: Path) -> str:
    """Only this user may connect."""
    place = path.absolute()
    if len(str(place)) > 100:
        raise SettingsError("a socket's path is too long", seen=place, accepted="up to 100 characters")
    if place.is_socket():
        place.unlink()  # of a process that was killed: the lock says that none runs
    elif place.exists():
        raise SettingsError("the socket's place is taken by a file", seen=place)
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{place}")
    except RuntimeError as error:
        raise WorkerError("the socket cannot be made", seen=place) from error
    finally:
        os.umask(before)
    return str(place)


def _credentials(listening: Listening) -> Optional[grpc.ServerCredentials]:
    if listening.certificate is None and listening.key is None and listening.clients is None:
        return None
    if listening.certificate is None or listening.key is None:
        raise SettingsError("TLS needs a certificate and its key", accepted="--certificate FILE --key FILE")
    try:
        pair = (listening.key.read_bytes(), listening.certificate.read_bytes())
        authority = None if listening.clients is None else listening.clients.read_bytes()
    except OSError as error:
        raise SettingsError(
            "a file for TLS cannot be read", seen=f"{error.filename}: {error.strerror}"
        ) from error
    return grpc.ssl_server_credentials([pair], authority, authority is not None)
