"""Atomic file writes: a crash, a full disk or a killed process never leaves half a file.

Every file is written beside its place under a temporary name, flushed to the disk and renamed:
a reader sees the old content or the new, never a mixture.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator, Mapping

from fedspect.errors import DamagedFileError, storage_error

LARGEST_LOG = 16 << 20  # bytes; an older one of the same size stays beside it
TEMPORARY_PREFIX = ".writing-"
MAKING_PREFIX = ".making-"


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends without an error.

    Raises:
        DiskFullError, ReadOnlyError, StorageError: the old file is untouched then.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=path.suffix, dir=str(path.parent))
    except OSError as error:
        raise storage_error(error, path, "making a file") from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path, "writing a file") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names, so that a rename survives a power cut."""
    descriptor = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``content``, whole or not at all."""
    with replacing(path, mode=mode) as file:
        file.write(content)


def write_text(path: Path, content: str, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``content`` in UTF-8, whole or not at all."""
    write_bytes(path, content.encode("utf-8"), mode=mode)


def write_json(path: Path, content: Any, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``content`` as indented JSON with sorted keys, whole or not at all."""
    write_text(path, as_json(content, indent=2, sort_keys=True) + "\n", mode=mode)


def as_json(content: Any, **options: Any) -> str:
    """JSON that UTF-8 can hold, whatever a file is called; ``options`` are those of ``json.dumps``.

    Bytes of a name that are not UTF-8 (Python has them as lone surrogates) are written as JSON's own escapes, so that
    reading gives the same name; everything else stays readable.
    """
    text = json.dumps(content, **{"ensure_ascii": False, **options})
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_folder(place: Path, contents: Mapping[str, bytes]) -> None:
    """Make the folder ``place`` with these files: it is there with all of them, or not at all.

    It is filled under the name ``.making-...`` and renamed; ``place`` must not exist. Two writers of one place
    need a lock of their own.

    Raises:
        DiskFullError, ReadOnlyError, StorageError: nothing is at ``place`` then.

    """
    making = place.parent / f"{MAKING_PREFIX}{place.name}"
    try:
        remove_folder(making)
        making.mkdir(parents=True)
        for name, content in contents.items():
            with (making / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(making)
        making.rename(place)
        sync_folder(place.parent)
    except OSError as error:
        raise storage_error(error, place, "writing a folder") from error


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it; one that is not there is no error.

    Raises:
        StorageError: it cannot be removed.

    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise storage_error(error, folder, "removing a folder") from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes in hex, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def read_json(path: Path) -> Any:
    """Read a JSON file of our own.

    Raises:
        DamagedFileError: it is not JSON (``FileNotFoundError`` passes through: absence is not damage).

    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DamagedFileError(
            "a file is not valid JSON",
            seen=f"{path}: {error}",
            remedy="restore it from a backup or remove it",
        ) from error


def append_line(path: Path, line: str) -> None:
    """Append one line and flush it to the disk; a torn last line of an earlier crash is ended first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(line.rstrip("\n").encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(error, path, "appending to a file") from error


def append_bounded(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row as a line of JSON; a log that has grown large is put aside first, and begun anew."""
    turn_over(path)
    append_line(path, as_json(row))


def turn_over(path: Path, *, open_elsewhere: bool = False) -> bool:
    """Put a log that has grown large aside as ``NAME.old.SUFFIX``, in place of an older one; whether it was.

    Args:
        path: the log.
        open_elsewhere: a process keeps it open for appending: it is copied and emptied, not renamed.

    """
    older = path.with_suffix(f".old{path.suffix}")
    try:
        if not path.exists() or path.stat().st_size <= LARGEST_LOG:
            return False
        if open_elsewhere:
            shutil.copyfile(path, older)
            os.truncate(path, 0)
        else:
            path.replace(older)
    except OSError as error:
        raise storage_error(error, path, "putting a log aside") from error
    return True


def read_json_lines(path: Path, *, on_damage: Callable[[str], None] = lambda line: None) -> list[Any]:
    """All complete JSON lines of a file; a torn one (a crash while appending) is passed to ``on_damage``."""
    if not path.exists():
        return []
    rows = []
    for line in lines_of(path.read_bytes()):
        try:
            rows.append(json.loads(line))
        except ValueError:
            on_damage(line)
    return rows


def lines_of(content: bytes) -> list[str]:
    """The lines of a file that ``append_line`` wrote: they end at a line feed only, as other signs at which
    ``str.splitlines`` ends a line may stand in a name.
    """
    lines = content.decode("utf-8", "replace").split("\n")
    return lines if lines[-1] else lines[:-1]
