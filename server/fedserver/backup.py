"""Backup and restore of a workspace: one tar stream that can be taken while the server runs.

Why no lock is needed: every file of a workspace is replaced by a rename, so one that is open never changes
(a log only grows, and is copied up to its last whole line). The one thing that spans several files is where
a run stands. A round's folder appears by one rename and is thinned out only after the next one has
appeared, so the newest round is opened whole, and if it is still the newest then, nothing of it was missing.
Rounds that close later are left out; what older rounds lose meanwhile is not needed to go on.

::

    workspace/...     files and folders with their modes
    backup.json       last: what was copied and its hashes, so a stream that was cut is known as such

``state/`` (locks, Flower's own files, logs) is made anew by every start and left out. Secrets are inside:
whoever has a backup can be headquarters.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fedserver.runs import run_folders
from fedserver.store import RunStore
from fedserver.workspace import SETTINGS_FILE, Workspace
from fedspect.errors import DamagedFileError, WorkspaceError, storage_error
from fedspect.files import TEMPORARY_PREFIX, sync_folder

FORMAT_VERSION = 1
MANIFEST = "backup.json"
PREFIX = "workspace"
LARGEST_MANIFEST = 64 << 20  # bytes
PIECE = 1 << 20  # bytes
RESTORING = ".restoring-"
LEFT_OUT_FOLDERS = ("state", "spool")  # at the top; in a run
TRIES = 100


@dataclass(frozen=True)
class Copied:
    """What a backup holds."""

    federation: str
    files: int
    bytes: int
    made: str
    """UTC, ISO 8601."""
    notes: tuple[str, ...] = ()
    """What the operator should know."""


class _Hashing:
    """A file for reading, its first ``size`` bytes only, that hashes what is read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(content)
        self._hash.update(content)
        return content

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def back_up(workspace: Workspace, stream: IO[bytes]) -> Copied:
    """Write a backup of ``workspace`` to ``stream``.

    Raises:
        SettingsError: ``fedserver.toml`` is not accepted (restoring it would help nobody).
        StorageError: something cannot be read.

    """
    settings = workspace.settings()
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    hashes: dict[str, str] = {}
    size = 0
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:

        def folder(relative: PurePosixPath, path: Path) -> None:
            info = tarfile.TarInfo(str(PurePosixPath(PREFIX) / relative))
            info.type, info.mode = tarfile.DIRTYPE, path.stat().st_mode & 0o777
            archive.addfile(info)

        def copy(relative: PurePosixPath, file: IO[bytes]) -> None:
            nonlocal size
            status = os.fstat(file.fileno())
            info = tarfile.TarInfo(str(PurePosixPath(PREFIX) / relative))
            info.mode, info.mtime = status.st_mode & 0o777, int(status.st_mtime)
            info.size = _whole_lines(file) if relative.suffix == ".jsonl" else status.st_size
            reader = _Hashing(file, info.size)
            archive.addfile(info, reader)  # it asks for read() only
            hashes[str(relative)] = reader.digest
            size += info.size

        for relative, path, file in _content(workspace):
            folder(relative, path) if file is None else copy(relative, file)
        manifest = json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "federation": settings.federation.name,
                "made": made,
                "bytes": size,
                "files": hashes,
            },
            indent=2,
        ).encode("utf-8")
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = len(manifest), 0o600
        archive.addfile(info, BytesIO(manifest))
    notes = []
    base = settings.base_folder(workspace.folder)
    if base is not None and not base.resolve().is_relative_to(workspace.folder):
        notes.append(f"the base model is outside the workspace and not in this backup: {base.resolve()}")
    return Copied(settings.federation.name, len(hashes), size, made, tuple(notes))


def restore(stream: IO[bytes], folder: Path) -> Copied:
    """Make a workspace in ``folder`` from a backup; its settings come last, so half a one is none.

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


# -- what there is to copy -----------------------------------------------------------------------------------


def _content(workspace: Workspace) -> Iterator[tuple[PurePosixPath, Path, IO[bytes] | None]]:
    """Folders (with no file) and open files, each with its name in the backup."""
    top = workspace.folder
    runs = {run for run in run_folders(workspace.runs) if RunStore.exists(run)}
    for path in sorted(top.iterdir()):
        if path.name not in LEFT_OUT_FOLDERS and path != workspace.runs:
            yield from _tree(path, top)
    if workspace.runs.is_dir():
        yield PurePosixPath("runs"), workspace.runs, None
    for run in sorted(runs):
        yield from _run(run, top)


def _tree(path: Path, top: Path) -> Iterator[tuple[PurePosixPath, Path, IO[bytes] | None]]:
    if path.name.startswith(TEMPORARY_PREFIX) or path.name.startswith(RESTORING) or path.suffix == ".lock":
        return
    relative = PurePosixPath(path.relative_to(top).as_posix())
    if path.is_dir() and not path.is_symlink():
        yield relative, path, None
        for each in sorted(path.iterdir()):
            yield from _tree(each, top)
    elif path.is_file():
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            yield relative, path, file


def _run(run: Path, top: Path) -> Iterator[tuple[PurePosixPath, Path, IO[bytes] | None]]:
    """A run: first where it stands, held open together, then the rest."""
    store = RunStore(run)
    for _ in range(TRIES):
        last = store.rounds()[-1]
        newest = run / f"{last:04d}"
        with contextlib.ExitStack() as held:
            opened = []
            for path in sorted(each for each in newest.iterdir() if not each.name.startswith(".")):
                with contextlib.suppress(FileNotFoundError):
                    opened.append((path, held.enter_context(path.open("rb"))))
            if store.rounds()[-1] != last:
                continue  # the next round closed meanwhile, so a file of this one may have gone
            yield PurePosixPath(run.relative_to(top).as_posix()), run, None
            yield PurePosixPath(newest.relative_to(top).as_posix()), newest, None
            for path, file in opened:
                yield PurePosixPath(path.relative_to(top).as_posix()), path, file
            break
    else:
        raise WorkspaceError("rounds close faster than they can be read", seen=run, remedy="try again")
    for path in sorted(run.iterdir()):
        later = path.name.isdigit() and int(path.name) >= last
        if not later and path.name not in (*LEFT_OUT_FOLDERS, "lock") and not path.name.startswith("."):
            yield from _tree(path, top)


def _whole_lines(file: IO[bytes]) -> int:
    """How many bytes of a growing file of lines are whole lines."""
    end = os.fstat(file.fileno()).st_size
    while end > 0:
        start = max(0, end - PIECE)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    file.seek(0)
    return end


# -- reading one back ----------------------------------------------------------------------------------------


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
    """A member's place in the workspace, ``None`` when it may have none there."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or len(path.parts) < 2 or path.parts[0] != PREFIX:
        return None
    return PurePosixPath(*path.parts[1:])


def _write(path: Path, content: IO[bytes], mode: int) -> str:
    """Write a file that nobody sees yet; its hash."""
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
