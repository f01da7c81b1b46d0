"""Engine store: one folder an engine, found by what it was built from and for.

::

    engines/
        <id>/engine.onnx | engine.plan    what the runtime loads
        <id>/engine.json                  the sidecar: key, facts, hash of the file (``stored``)
        timing/                           TensorRT's timing caches, one per version and device
        .new-*, .old-*                    what a killed process left; swept by the next change

An engine is made in ``.new-*`` and renamed when it is whole, and renamed to ``.old-*`` before it is taken
apart: whenever a process dies, each engine is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

from fedclient.engine_files import FILES, OTHER_FILE, SIDECAR
from fedclient.worker.deployments.pointer import Deployments
from fedclient.worker.engines.stored import FORMAT, EngineKey, StoredEngine, read_engine
from fedspect.errors import DamagedFileError, EngineError, StorageError, storage_error
from fedspect.files import file_hash, sync_folder, write_json
from fedspect.locking import exclusive, taken

NEW, OLD = ".new-", ".old-"
DEFAULT_LIMIT = 2 << 30


class EngineStore:
    """The engines of one device, bounded in size. Several processes may use one store."""

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    @property
    def timing(self) -> Path:
        """Where TensorRT's timing caches are kept."""
        return self.folder / "timing"

    def find(self, key: EngineKey) -> Optional[StoredEngine]:
        """The engine of a key, whole and unchanged: its file is read and hashed here, for whoever finds one does
        not build. A damaged one counts as none and is built again.
        """
        try:
            stored = read_engine(self.folder / key.name)
            stored.check()
        except (FileNotFoundError, DamagedFileError):
            return None
        if stored.key != key:
            return None
        self._touch(stored)
        return stored

    def get(self, engine_id: str) -> StoredEngine:
        """The engine of an id, as deployments name it. Only the sidecar is read: opening the engine checks its
        file, and so does ``check``.

        Raises:
            EngineError: there is none.
            DamagedFileError: its sidecar is not what was written.

        """
        if not engine_id or Path(engine_id).name != engine_id or engine_id.startswith("."):
            raise _unknown(engine_id)
        try:
            stored = read_engine(self.folder / engine_id)
        except FileNotFoundError as error:
            raise _unknown(engine_id) from error
        self._touch(stored)
        return stored

    def list(self) -> List[StoredEngine]:
        """All engines whose sidecar can be read, the one that was used last first."""
        found = []
        for folder in self._folders():
            with contextlib.suppress(FileNotFoundError, DamagedFileError):
                found.append((_used_at(folder), read_engine(folder)))
        return [stored for _, stored in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def damaged(self) -> List[str]:
        """Ids of engines whose sidecar cannot be read."""
        names = []
        for folder in self._folders():
            try:
                read_engine(folder)
            except (FileNotFoundError, DamagedFileError):
                names.append(folder.name)
        return names

    def add(self, key: EngineKey, build: Callable[[Path], Dict[str, Any]]) -> StoredEngine:
        """Let ``build`` write the engine's file and answer its facts, and keep both.

        Takes the place of an engine of the same key. Others go, the longest unused first, until the store
        fits its limit; those that deployments point to stay.

        Raises:
            DiskFullError, StorageError: nothing was changed then.
            EngineError: the build's own, or the engine alone is larger than the store may be.

        """
        temporary, hold = self._temporary()
        try:
            file = temporary / FILES.get(key.kind, OTHER_FILE)
            begun = time.time()
            facts = build(file)
            self._complete(key, file, facts, begun)
            with exclusive(self.folder / ".lock"):
                self._sweep()
                place = self.folder / key.name
                if place.exists():
                    self._take_apart(place)
                temporary.replace(place)
                sync_folder(self.folder)
                self._shrink(spare={key.name})
        except OSError as error:
            raise storage_error(error, self.folder, "keeping an engine") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(hold)
        return read_engine(place)

    def remove(self, engine_id: str) -> None:
        """Take an engine away.

        Raises:
            EngineError: there is none, or a deployment points to it.

        """
        if engine_id not in {folder.name for folder in self._folders()}:
            raise _unknown(engine_id)
        if engine_id in self.deployed():
            raise EngineError(
                "an engine is in use",
                seen=engine_id,
                remedy="activate another deployment first; the running one and the one before it are kept",
            )
        with exclusive(self.folder / ".lock"):
            self._take_apart(self.folder / engine_id)

    def deployed(self) -> Set[str]:
        """Ids that the deployments beside the store point to; all of them where that cannot be read."""
        try:
            return Deployments(self.folder.parent / "deployments").engines_in_use()
        except StorageError:
            return {folder.name for folder in self._folders()}

    @contextlib.contextmanager
    def building(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """One build at a time on this device: waits for the one that runs, in whatever process."""
        with exclusive(self.folder / ".building", on_wait):
            yield

    def _folders(self) -> List[Path]:
        if not self.folder.is_dir():
            return []
        paths = (path for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        return sorted(path for path in paths if path != self.timing)

    def _temporary(self) -> Tuple[Path, int]:
        """A folder for an engine in the making, and the lock that says that its maker lives."""
        with exclusive(self.folder / ".lock"):
            try:
                folder = Path(tempfile.mkdtemp(prefix=NEW, dir=str(self.folder)))
                hold = os.open(str(folder), os.O_RDONLY | os.O_CLOEXEC)
                taken(hold)
            except OSError as error:
                raise storage_error(error, self.folder, "making a folder for an engine") from error
        return folder, hold

    def _complete(self, key: EngineKey, file: Path, facts: Dict[str, Any], begun: float) -> None:
        size = file.stat().st_size
        if size > self.limit_bytes:
            raise EngineError(
                "an engine is larger than its store may be",
                seen=f"{size} bytes",
                accepted=f"{self.limit_bytes} bytes",
                remedy="raise the store's limit",
            )
        with file.open("rb+") as written:
            os.fsync(written.fileno())
        sidecar: Dict[str, Any] = {"build_seconds": round(time.time() - begun, 3), "built_at": time.time()}
        sidecar.update(facts)
        sidecar.update(format=FORMAT, key=asdict(key), bytes=size, sha256=file_hash(file))
        write_json(file.parent / SIDECAR, sidecar)

    def _shrink(self, spare: Set[str]) -> None:
        sizes = {folder: _size(folder) for folder in self._folders()}
        kept = spare | self.deployed()
        for folder in sorted(sizes, key=_used_at):
            if sum(sizes.values()) <= self.limit_bytes:
                return
            if folder.name not in kept:
                self._take_apart(folder)
                del sizes[folder]

    def _sweep(self) -> None:
        """Remove what processes that are no more left behind: nobody holds it."""
        for path in [*self.folder.glob(f"{OLD}*"), *self.folder.glob(f"{NEW}*")]:
            with contextlib.suppress(OSError):
                descriptor = os.open(str(path), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if taken(descriptor):
                        shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(descriptor)

    def _take_apart(self, folder: Path) -> None:
        old = self.folder / f"{OLD}{time.monotonic_ns()}"
        try:
            folder.replace(old)
        except OSError as error:
            raise storage_error(error, folder, "removing an engine") from error
        shutil.rmtree(old, ignore_errors=True)

    def _touch(self, stored: StoredEngine) -> None:
        with contextlib.suppress(OSError):
            os.utime(str(stored.folder / SIDECAR))


def _used_at(folder: Path) -> float:
    try:
        return (folder / SIDECAR).stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _unknown(engine_id: str) -> EngineError:
    return EngineError(
        "there is no such engine",
        seen=repr(engine_id),
        accepted="an id that `fedclient engines list` shows",
        remedy="build it with `fedclient engines build`",
    )
