"""Flower's SuperLink as a supervised child process, and the ServerApp's process beside it.

The Fleet API, for the devices, listens where the settings say; the Control API and the
ServerApp API listen on loopback ports that the system picks. Flower's state is in its memory and empty at every start:
which devices there are is read from our registry, and what a run has achieved from its own folder, so
nothing in it needs to last.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fedserver.enrolment.authority import Authority
from fedserver.flower.control_api import Control, ControlAddress
from fedspect import files
from fedspect.errors import ConnectionLostError, FederationError
from fedspect.protocol.names import join_address

READY_WITHIN = 180.0  # seconds; importing Flower alone takes some on a slow machine
STOP_WITHIN = 8.0
MARK_VARIABLE = "FEDSPECT_SUPERLINK_OF"
SECRET_VARIABLE = "FEDSPECT_CONTROL_SECRET"
PARENT_VARIABLE = "FEDSPECT_PARENT"
ADDRESS_VARIABLE = "FEDSPECT_SERVERAPP_API"


class SuperLink:
    """The child process: start, watch, stop, and sweep up after one that was killed."""

    def __init__(self, folder: Path, authority: Authority, log: Path) -> None:
        self.folder = folder
        self.log = log
        self._authority = authority
        self._process: subprocess.Popen[bytes] | None = None
        self._serverapp: subprocess.Popen[bytes] | None = None
        self._log_from = 0
        """Where in the log what this start says begins."""
        self.serverapp_api = ""
        self._serverapp_secret = ""
        self.control_address = ControlAddress("", "")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return None if self._process is None else self._process.pid

    def start(self, bind: str, fleet_port: int) -> None:
        """Start and wait until it answers.

        Raises:
            FederationError: the fleet port is taken, or the process ends at once; its last words are in the
            message.

        """
        self.sweep()
        check_port(bind, fleet_port, "fleet_port")
        for attempt in (1, 2, 3):
            try:
                self._start_once(bind, fleet_port)
                return
            except _PortTakenError as error:
                # A system-picked port was taken between picking and using: pick others.
                if attempt == 3:
                    raise FederationError("Flower's SuperLink finds no free port", seen=str(error)) from error

    def _start_once(self, bind: str, fleet_port: int) -> None:
        shutil.rmtree(self.folder / "apps", ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        control, serverapp = free_port(), free_port()
        self.serverapp_api, self._serverapp_secret = f"127.0.0.1:{serverapp}", secrets.token_urlsafe(32)
        secret_file = self.folder / "serverapp.secret"
        files.write_text(secret_file, self._serverapp_secret, mode=0o600)
        self.control_address = ControlAddress(f"127.0.0.1:{control}", secrets.token_urlsafe(32))
        command = [sys.executable, "-m", "fedserver.flower.superlink_process"]
        command += ["--fleet-api-address", join_address(bind, fleet_port)]
        command += ["--control-api-address", self.control_address.address]
        command += ["--serverappio-api-address", self.serverapp_api, "--isolation", "process"]
        command += ["--superexec-auth-secret-file", str(secret_file)]
        command += ["--ssl-ca-certfile", str(self._authority.certificate_path)]
        command += ["--ssl-certfile", str(self._authority.server_certificate_path)]
        command += ["--ssl-keyfile", str(self._authority.server_key_path)]
        command += ["--enable-supernode-auth"]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.turn_log_over()
        self._log_from = self.log.stat().st_size if self.log.exists() else 0
        self._process = self._spawn(command, {SECRET_VARIABLE: self.control_address.secret})
        try:
            self._wait_until_ready(bind, fleet_port)
        except BaseException:
            self.stop()
            raise

    def _spawn(self, command: list[str], more: dict[str, str]) -> subprocess.Popen[bytes]:
        """A child that carries this workspace's mark and ends with this process."""
        environment = {
            **os.environ,
            **flower_environment(self.folder),
            **more,
            MARK_VARIABLE: str(self.folder),
            PARENT_VARIABLE: str(os.getpid()),
        }
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start_serverapp(self) -> None:
        """Start the process that claims the submitted run and runs it; whatever is left of an earlier one
        goes.
        """
        self.end_serverapp()
        self._serverapp = self._spawn(
            [sys.executable, "-m", "fedserver.flower.serverapp_process"],
            {ADDRESS_VARIABLE: self.serverapp_api, SECRET_VARIABLE: self._serverapp_secret},
        )

    @property
    def serverapp_pid(self) -> int | None:
        """The running ServerApp's process, ``None`` when none runs."""
        process = self._serverapp
        return process.pid if process is not None and process.poll() is None else None

    def end_serverapp(self) -> None:
        """End the ServerApp: two must never write one run."""
        process = self._serverapp
        if process is not None:
            _end(lambda: process.poll() is None, process.terminate, process.kill)
            self._serverapp = None

    def _wait_until_ready(self, bind: str, fleet_port: int) -> None:
        control = self.control()
        deadline = time.monotonic() + READY_WITHIN
        try:
            while True:
                if not self.alive:
                    words = self.last_words()
                    if "already in use" in words:
                        raise _PortTakenError(words)
                    raise FederationError("Flower's SuperLink ended at once", seen=words)
                with contextlib.suppress(ConnectionLostError, OSError):
                    control.online()
                    socket.create_connection((_reachable(bind), fleet_port), timeout=2.0).close()
                    return
                if time.monotonic() > deadline:
                    raise FederationError("Flower's SuperLink does not come up", seen=self.last_words())
                time.sleep(0.1)
        finally:
            control.close()

    def control(self) -> Control:
        """A connection to its Control API."""
        return Control(self.control_address, self._authority.certificate_path.read_bytes())

    def last_words(self) -> str:
        """The end of what it logged since it was started, for an error message."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self._log_from, file.seek(0, os.SEEK_END) - 4096))
                return file.read().decode("utf-8", "replace").strip()[-800:]
        except OSError:
            return "nothing was logged"

    def turn_log_over(self) -> None:
        """Keep the log bounded; what was said before the last start stays in it, for whoever looks for a cause."""
        if files.turn_over(self.log, open_elsewhere=True):
            self._log_from = 0

    def stop(self) -> None:
        """End it and all that it started; nothing is left behind."""
        self.end_serverapp()
        if self._process is not None:
            _end(lambda: self.alive, self._process.terminate, self._process.kill)
            self._process.wait()
        self.sweep()

    def sweep(self) -> None:
        """End what an earlier start of this workspace left running: SuperLink and ServerApp."""
        found = self.marked()
        _end(lambda: bool(self.marked()), lambda: _signal(found, signal.SIGTERM), self._kill_marked)

    def _kill_marked(self) -> None:
        _signal(self.marked(), signal.SIGKILL)

    def marked(self) -> list[int]:
        """Processes that carry this workspace's mark in their environment; the mark outlives every parent."""
        mark = f"{MARK_VARIABLE}={self.folder}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return [pid for pid in found if pid != os.getpid()]


class _PortTakenError(FederationError):
    """A port was taken."""


def flower_environment(home: Path) -> dict[str, str]:
    """What keeps Flower at home: its own folder, no telemetry, no question for updates, quiet logs."""
    return {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "no_grpc_proxy": "127.0.0.1",  # the ServerApp calls the SuperLink, with a channel of Flower's own
        "FLWR_LOG_LEVEL": os.environ.get("FLWR_LOG_LEVEL", "WARNING"),
    }


def free_port() -> int:
    """A loopback port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(bind: str, port: int, setting: str) -> None:
    """See that a port that the settings name can be had.

    Raises:
        FederationError: it cannot; the message names the setting.

    """
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            raise FederationError(
                "cannot listen there",
                seen=f"{join_address(bind, port)}: {error.strerror}",
                remedy=f"end the program that uses it, or set another {setting} in fedserver.toml",
            ) from error


def _reachable(bind: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)


def _end(running: Callable[[], bool], politely: Callable[[], None], firmly: Callable[[], None]) -> None:
    if not running():
        return
    politely()
    deadline = time.monotonic() + STOP_WITHIN
    while running():
        if time.monotonic() > deadline:
            firmly()
            deadline += STOP_WITHIN
        time.sleep(0.05)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
