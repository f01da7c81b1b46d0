"""File locks, held by the kernel: a killed process holds none, and a stale file means nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional

from fedspect.errors import AlreadyRunningError, FederationError, storage_error


@contextlib.contextmanager
def exclusive(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait for the lock on ``path``, hold it for the block; ``on_wait`` is called if another process has it."""
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Occupied:
    """The lock of a long-running process: who comes second is told who is there, since when and where."""

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        self._descriptor: Optional[int] = None

    def acquire(self) -> None:
        """Take the lock and write down who holds it.

        Raises:
            AlreadyRunningError: another process does; its number, machine and start are in the message.

        """
        descriptor = _open(self.path)
        if not taken(descriptor):
            os.close(descriptor)
            raise self._occupied_by(self.holder() or {})
        entry = f"pid = {os.getpid()}\nhost = {socket.gethostname()}\nsince = {time.time():.0f}\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, entry.encode("utf-8"), 0)
        self._descriptor = descriptor

    def check(self) -> None:
        """See that nobody holds the lock, without taking it; errors as ``acquire``."""
        holder = self.holder()
        if holder is not None:
            raise self._occupied_by(holder)

    def release(self) -> None:
        """Let go; harmless when nothing is held."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> Optional[Dict[str, Any]]:
        """Who holds the lock (``pid``, ``host``, ``since``), ``None`` when nobody does.

        A holder that is just starting or ending has not written these down, or not any more: they are absent.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            lines = os.pread(descriptor, 4096, 0).decode("utf-8", "replace").splitlines()
            pairs = [line.partition(" = ") for line in lines]
            told: Dict[str, Any] = {key: value for key, _, value in pairs if key == "host"}
            told.update({key: int(value) for key, _, value in pairs if _is_number(value)})
            return told
        finally:
            os.close(descriptor)

    def end(self, within: float) -> bool:
        """Ask the process that holds the lock to end, and wait until it has let go; whether there was one.

        Raises:
            FederationError: it has not after ``within`` seconds.

        """
        holder = self.holder()
        if holder is None:
            return False
        deadline = time.monotonic() + within
        asked: Optional[int] = None
        while holder is not None:
            if asked is None and "pid" in holder:
                asked = holder["pid"]
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(asked, signal.SIGTERM)
            if time.monotonic() > deadline:
                raise FederationError(
                    f"{self.what} does not end",
                    seen="a process that is just starting" if asked is None else f"process {asked}",
                    remedy="try again" if asked is None else f"kill -9 {asked}",
                )
            time.sleep(0.1)
            holder = self.holder()
        return True

    def _occupied_by(self, holder: Dict[str, Any]) -> AlreadyRunningError:
        seen = "a process that is just starting or ending"
        if "pid" in holder:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("since", 0)))
            seen = f"process {holder['pid']} on {holder.get('host', 'this machine')} since {since}"
        return AlreadyRunningError(
            f"{self.what} is running already", seen=seen, remedy="use the running one, or stop it first"
        )

    def __enter__(self) -> Occupied:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def taken(descriptor: int) -> bool:
    """Lock an open file or folder unless another process has; whether it could. ``holder`` borrows it briefly."""
    for _ in range(5):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def _is_number(text: str) -> bool:
    """Whether it is a positive one: to signal process 0 would be to signal one's own group."""
    return text.isascii() and text.isdigit() and 0 < len(text) < 16 and int(text) > 0


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise storage_error(error, path, "opening a lock") from error
