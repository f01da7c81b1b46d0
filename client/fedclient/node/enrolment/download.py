"""Resumable downloads of files that headquarters offers: bounded, and each file whole or not at all.

Nothing of what is offered is believed: names must be plain, sizes bounded, and every file must have the hash
that was announced for it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from fedspect import files
from fedspect.errors import (
    ConnectionLostError,
    DamagedFileError,
    EnrolmentError,
    FedspectError,
    storage_error,
)
from fedspect.protocol.enrolment_pb2 import BaseChunk, FileEntry
from fedspect.protocol.limits import LARGEST_BASE_MODEL, MOST_BASE_FILES
from fedspect.protocol.versions import HEAD_FILE
from fedspect.update.schema import version_of

MOST_BREAKS = 5  # of the connection in one file

Progress = Callable[[int, int], None]
"""Is told bytes done and bytes in all."""
Ask = Callable[[str, int], Iterator[BaseChunk]]
"""Asks headquarters for a file's content from an offset on."""


def no_progress(done: int, total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Offered:
    """Files that headquarters offers as one thing; ``what`` names it in errors."""

    what: str
    entries: tuple[FileEntry, ...]

    def fetch(self, folder: Path, ask: Ask, progress: Progress = no_progress) -> bool:
        """Download all files into ``folder``, in the order in which they are offered; whether any was missing.

        Raises:
            EnrolmentError: too many files or bytes, or a strange name; nothing was fetched.
            DamagedFileError: what came is not what was announced.
            StorageError: it cannot be kept.

        """
        total = sum(entry.size for entry in self.entries)
        if len(self.entries) > MOST_BASE_FILES or total > LARGEST_BASE_MODEL:
            raise EnrolmentError(f"the {self.what} offered is too large", seen=f"{total} bytes")
        places = [folder / plain_name(entry.name) for entry in self.entries]
        before, fetched = 0, False
        for entry, path in zip(self.entries, places):
            if not _holds(path, entry.sha256):
                self._fetch_file(path, entry, ask, partial(_advance, progress, before, total))
                fetched = True
            before += entry.size
            progress(before, total)
        return fetched

    def _fetch_file(self, path: Path, entry: FileEntry, ask: Ask, progress: Callable[[int], None]) -> None:
        """Download one file, from where a broken download stopped."""
        digest, received, breaks = hashlib.sha256(), 0, 0
        with files.replacing(path) as file:
            while received < entry.size:
                try:
                    for chunk in ask(entry.name, received):
                        received += len(chunk.data)
                        if received > entry.size:
                            break
                        digest.update(chunk.data)
                        file.write(chunk.data)
                        progress(received)
                    break
                except ConnectionLostError:
                    breaks += 1
                    if breaks > MOST_BREAKS:
                        raise
                    time.sleep(breaks)
            if received != entry.size or digest.digest() != entry.sha256:
                raise DamagedFileError(
                    f"the {self.what} did not come as it was announced",
                    seen=f"{path.name}: {received} of {entry.size} bytes, SHA-256 {digest.hexdigest()[:12]}",
                    accepted=entry.sha256.hex()[:12],
                    remedy="try again",
                )


def check_version(folder: Path, version_hash: str) -> None:
    """Verify that the head in ``folder`` is the version that it was offered as.

    Raises:
        DamagedFileError: it is not; its file is removed, so that it is fetched again.

    """
    path = folder / HEAD_FILE
    try:
        seen = version_of(load_file(path))
    except (SafetensorError, ValueError, FedspectError) as error:
        seen = str(error)[:200]
    if seen != version_hash:
        path.unlink(missing_ok=True)
        raise DamagedFileError(
            "a published version is not what its name says", seen=seen, accepted=version_hash[:12]
        )


def _advance(progress: Progress, before: int, total: int, received: int) -> None:
    progress(before + received, total)


def _holds(path: Path, sha256: bytes) -> bool:
    try:
        return files.file_hash(path) == sha256.hex()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(error, path, "reading a file") from error


def plain_name(name: str) -> str:
    """Validate a file name: without folders, so that nothing is written elsewhere.

    Raises:
        EnrolmentError: it is none.

    """
    if name != Path(name).name or name.startswith(".") or not name or not name.isprintable():
        raise EnrolmentError("headquarters offers a file with a strange name", seen=repr(name[:100]))
    return name


def hash_name(text: str) -> str:
    """Validate a content hash, hexadecimal.

    Raises:
        EnrolmentError: it is none.

    """
    if len(text) != 64 or not all(character in "0123456789abcdef" for character in text):
        raise EnrolmentError("headquarters names something strangely", seen=repr(text[:100]))
    return text
