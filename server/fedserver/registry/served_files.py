"""File serving in chunks: names, sizes and hashes of files, and their content from an offset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedspect.errors import FederationError, storage_error
from fedspect.files import file_hash
from fedspect.protocol.enrolment_pb2 import FileEntry
from fedspect.protocol.limits import CHUNK


@dataclass(frozen=True)
class ServedFile:
    """One file; ``size`` in bytes."""

    name: str
    size: int
    sha256: bytes


@dataclass(frozen=True)
class ServedFiles:
    """A folder's files, hashed once: the receiver compares what is streamed later with these hashes."""

    folder: Path
    files: tuple[ServedFile, ...]

    @classmethod
    def read(cls, folder: Path, names: Iterable[str]) -> ServedFiles:
        """Hash the files of these names; ``OSError`` passes through."""
        return cls(folder, tuple(_hashed(folder / name) for name in names))

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(each.size for each in self.files)

    def entries(self) -> list[FileEntry]:
        """Names, sizes and hashes of the files."""
        return [FileEntry(name=each.name, size=each.size, sha256=each.sha256) for each in self.files]

    def pieces(self, name: str, offset: int) -> Iterator[bytes]:
        """The content of one of the files from ``offset`` on, in chunks of ``CHUNK`` bytes.

        Raises:
            FederationError: there is no such file.
            StorageError: it cannot be read.

        """
        known = next((each for each in self.files if each.name == name), None)
        if known is None:
            accepted = ", ".join(each.name for each in self.files)
            raise FederationError("there is no such file", seen=repr(name[:100]), accepted=accepted)
        try:
            with (self.folder / known.name).open("rb") as file:
                file.seek(min(offset, known.size))
                while piece := file.read(CHUNK):
                    yield piece
        except OSError as error:
            raise storage_error(error, self.folder / known.name, "reading a file to hand out") from error


def _hashed(path: Path) -> ServedFile:
    return ServedFile(path.name, path.stat().st_size, bytes.fromhex(file_hash(path)))
