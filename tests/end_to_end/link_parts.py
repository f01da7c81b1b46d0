"""Real parts for tests of the link: a SuperLink with TLS, node processes, a proxy that can be cut."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.primitives.asymmetric import private_key_to_bytes, public_key_to_bytes

from fedserver.flower.control_api import FlowerRun, thin_bundle
from fedserver.flower.superlink import SuperLink, free_port
from fedserver.workspace import Workspace, create
from relays import Proxy

HERE = Path(__file__).resolve().parent
PATIENCE = 600.0
"""Seconds; starting Python with Flower takes two of them on an idle machine and a minute on a busy one."""


def python_path() -> Dict[str, str]:
    """The environment in which child processes find what this process finds, and do not fight for
    processors.
    """
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
    }


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Poll until something is true; a bounded wait, not a measurement."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.05)


class Headquarters:
    """A workspace with a running SuperLink and no rounds of its own."""

    def __init__(self, folder: Path) -> None:
        create(folder / "hq", ["localhost"])
        self.folder = folder
        self.workspace = Workspace.open(folder / "hq")
        self.superlink = SuperLink(
            self.workspace.state / "flower", self.workspace.authority, self.workspace.logs / "superlink.log"
        )
        self.port = free_port()
        self.authority_pem = self.workspace.authority.certificate_path

    def start(self) -> None:
        self.superlink.start("127.0.0.1", self.port)
        self.control = self.superlink.control()

    def run(self, **config: Any) -> Dict[str, Any]:
        """Run ``echo_server`` to its end and answer what it wrote."""
        out = self.folder / f"result-{time.monotonic_ns()}.json"
        run_id = self.control.submit(thin_bundle("echo_server", {"out": str(out), **config}), {})
        self.superlink.start_serverapp()
        state: FlowerRun = wait_for(
            lambda: (found := self.control.state(run_id)).over and found, "the end of the run"
        )
        assert state.sub_status == "completed", state
        content = json.loads(out.read_text())
        assert isinstance(content, dict)
        return content


class NodeProcess:
    """``echo_node.py`` as a process of its own, with a key of its own."""

    def __init__(self, hq: Headquarters, name: str, *, registered: bool = True) -> None:
        self.hq = hq
        self.folder = hq.folder / name
        self.folder.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP384R1())
        (self.folder / "key").write_bytes(private_key_to_bytes(key))
        self.public_key = public_key_to_bytes(key.public_key()).decode()
        self.node_id = hq.control.register(self.public_key) if registered else None
        self.process: Optional[subprocess.Popen[str]] = None
        self.states: List[List[str]] = []

    def start(self, *, port: Optional[int] = None, clock_offset: float = 0.0) -> None:
        command = [
            sys.executable,
            str(HERE / "echo_node.py"),
            f"localhost:{port or self.hq.port}",
            str(self.hq.authority_pem),
            str(self.folder),
            str(clock_offset),
        ]
        self.states = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=python_path())
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.states.append(line.rstrip("\n").split("\t", 1))

    def saw(self, state: str) -> bool:
        return any(each[0] == state for each in list(self.states))

    def wait_for(self, state: str, seconds: float = PATIENCE) -> None:
        wait_for(lambda: self.saw(state), f"state {state!r} of {self.folder.name}", seconds)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=30)


@contextlib.contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
