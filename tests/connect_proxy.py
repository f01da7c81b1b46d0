"""An HTTP proxy for CONNECT on a loopback port, which leads every name to one port of this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import List


class ConnectProxy:
    """What a company's proxy does: one request, "200", and bytes both ways. ``asked`` has what was asked for."""

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


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
