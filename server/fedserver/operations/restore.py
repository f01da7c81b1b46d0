"""Restore a workspace from a backup: unpacked to a temporary folder, verified whole, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fedserver.operations.backup import FORMAT_VERSION, MANIFEST, PIECE, PREFIX, RESTORING, Copied
from fedserver.workspace import SETTINGS_FILE, Workspace
from fedspect.errors import DamagedFileError, WorkspaceError, storage_error
from fedspect.files import sync_folder

LARGEST_MANIFEST = 64 << 20  # bytes


def restore(stream: IO[bytes], folder: Path) -> Copied:
    """Restore a backup into ``folder``; its settings come last, so an unfinished one is no workspace.

    Raises:
        WorkspaceError: ``folder`` is there already and not empty; the backup is of another version.
        DamagedFileError: the stream is no backup, was cut, or holds something else than was written.
        StorageError: it cannot be written.

    """
    folder = folder.resolve()
    try:
        there = [each.name for each in folder.iterdir() if not each.name.startswith(".")]
    except FileNotFoundError:
        there = []
    except NotADirectoryError:
        there = [folder.name]
    if there:
        raise WorkspaceError(
            "a backup is never restored over something else",
            seen=f"{folder}: {', '.join(sorted(there)[:5])}",
            accepted="a new or an empty folder",
            remedy="choose another folder, or move this one away first",
        )
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        Workspace(folder).close_to_others()
        for rest in folder.glob(f"{RESTORING}*"):
            shutil.rmtree(rest, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=RESTORING, dir=folder))
    except OSError as error:
        raise storage_error(error, folder, "restoring a backup") from error
    try:
        copied = _unpack(stream, work)
        top = sorted(work.iterdir(), key=lambda path: path.name == SETTINGS_FILE)
        for path in top:
            path.rename(folder / path.name)
        (folder / "state").mkdir(mode=0o700, exist_ok=True)
        work.rmdir()
        sync_folder(folder)
    except OSError as error:
        raise storage_error(error, folder, "restoring a backup") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()  # goes only if it stayed empty
    return copied


def _unpack(stream: IO[bytes], work: Path) -> Copied:
    hashes: dict[str, str] = {}
    manifest: dict[str, Any] | None = None
    folders: list[tuple[Path, int]] = []
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if member.name == MANIFEST and content is not None and member.size <= LARGEST_MANIFEST:
                    manifest = json.loads(content.read())
                    break
                relative = _relative(member.name)
                if relative is None or (content is None and not member.isdir()):
                    raise _no_backup(f"it holds {member.name!r}")
                if content is None:
                    (work / relative).mkdir(parents=True, exist_ok=True, mode=0o700)
                    folders.append((work / relative, member.mode & 0o777))
                else:
                    hashes[str(relative)] = _write(work / relative, content, member.mode & 0o777)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _no_backup(str(error)) from error
    if not isinstance(manifest, dict):
        raise _no_backup("it ends too early")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise WorkspaceError(
            "the backup is of another format",
            seen=manifest.get("format_version"),
            accepted=str(FORMAT_VERSION),
            remedy="use the version of Fedspect that made it",
        )
    if manifest.get("files") != hashes:
        raise _no_backup("what it holds is not what was written")
    for folder, mode in reversed(folders):
        folder.chmod(mode | 0o700)
        sync_folder(folder)
    return Copied(str(manifest["federation"]), len(hashes), int(manifest["bytes"]), str(manifest["made"]))


def _relative(name: str) -> PurePosixPath | None:
    """A member's path within the workspace, ``None`` when it is not allowed there."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or len(path.parts) < 2 or path.parts[0] != PREFIX:
        return None
    return PurePosixPath(*path.parts[1:])


def _write(path: Path, content: IO[bytes], mode: int) -> str:
    """Write a file into the temporary folder and return its hash."""
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while piece := content.read(PIECE):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), mode)
    return digest.hexdigest()


def _no_backup(why: str) -> DamagedFileError:
    return DamagedFileError(
        "this is not a whole backup of a workspace",
        seen=why,
        accepted="what `fedserver backup` wrote",
        remedy="use another backup; nothing was restored",
    )
