"""Backup of a workspace: one tar stream that can be taken while the server runs; ``restore`` reads it back.

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
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from fedserver.storage.run_store import RunStore
from fedserver.storage.runs import run_folders
from fedserver.workspace import Workspace
from fedspect.errors import WorkspaceError
from fedspect.files import TEMPORARY_PREFIX
from fedspect.shipped_bases import SHIPPED

FORMAT_VERSION = 1
MANIFEST = "backup.json"
PREFIX = "workspace"
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
    if (
        base is not None
        and base not in SHIPPED.values()
        and not base.resolve().is_relative_to(workspace.folder)
    ):
        notes.append(f"the base model is outside the workspace and not in this backup: {base.resolve()}")
    return Copied(settings.federation.name, len(hashes), size, made, tuple(notes))


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
    """Length in bytes of the complete lines of a file that grows."""
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
