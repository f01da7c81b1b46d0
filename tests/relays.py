"""TCP relays on loopback for tests of the network: one that can be cut or go silent, and an HTTP proxy."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Callable, List, Tuple


class Proxy:
    """A TCP relay on a loopback port; ``cut`` drops every connection and refuses new ones until ``mend``;
    ``forget`` goes on taking what comes on the connections that there are and passes nothing on, as a firewall
    does that has forgotten them.
    """

    def __init__(self, target_port: int, listen: Tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.target_port = target_port
        self._listener = socket.create_server(listen)
        self.port = int(self._listener.getsockname()[1])
        self._open = threading.Event()
        self._open.set()
        self._sockets: List[socket.socket] = []
        self._forgotten: List[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._open.clear()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def forget(self) -> None:
        self._forgotten += self._sockets

    def mend(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._open.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                near.close()
                continue
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        _relay(source, sink, lambda: source not in self._forgotten)


class ConnectProxy:
    """An HTTP proxy, as a company has one, that leads every name to one port of this machine: one request, "200", and
    bytes both ways. ``asked`` has what was asked for.
    """

    def __init__(self, target_port: int) -> None:
        self.asked: List[str] = []
        self._target = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(1)
        self.asked.append(head.decode())
        far = socket.create_connection(("127.0.0.1", self._target))
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_relay, args=(far, near), daemon=True)
        back.start()
        _relay(near, far)


def _relay(source: socket.socket, sink: socket.socket, passes: Callable[[], bool] = lambda: True) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if passes():
                sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
