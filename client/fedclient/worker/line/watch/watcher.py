"""Folder watcher: each new picture of a folder that a camera fills gets one verdict.

The folder is looked at again and again (no notification survives a network share, and a look finds what came while
nobody ran). A picture is read once its size and time have not changed for a moment and it decodes whole. One
that stays damaged gets the verdict "ask" with the reason: a person must see it, it must not pass.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from fedclient.worker.line.decision_policy import ASK
from fedclient.worker.line.monitoring.telemetry import Telemetry
from fedclient.worker.line.serving.dynamic_batcher import DynamicBatcher
from fedclient.worker.line.serving.input_pictures import from_encoded
from fedclient.worker.line.serving.model_leases import BusyError, NotReadyError, ServedModel
from fedclient.worker.line.watch.journal import Journal, key_of
from fedspect.data.decode import SUFFIXES, read_bytes
from fedspect.errors import EngineError, NoPicturesError, PictureError

logger = logging.getLogger("fedclient.line")


# Pillow shows a picture as soon as all of its pixels are there; a camera may still be writing behind them.
ENDS = ((b"\x89PNG", b"IEND"), (b"\xff\xd8", b"\xff\xd9"))
TAIL = 4096  # bytes; some programs add notes of their own behind a picture's end


def has_its_end(content: bytes) -> bool:
    """Whether a PNG or JPEG file is complete (has its end marker); the other formats have none."""
    return all(not content.startswith(sign) or end in content[-TAIL:] for sign, end in ENDS)


class Watcher:
    """Gives verdicts on one folder's pictures; ``look`` is called from one thread."""

    def __init__(
        self,
        folder: Path,
        line: DynamicBatcher,
        journal: Journal,
        telemetry: Telemetry,
        say: Callable[[Dict[str, Any]], None],
        *,
        settle: float = 0.3,
        give_up: float = 10.0,
    ) -> None:
        """``settle``: seconds that a file must not change; ``give_up``: after which a damaged one is named.

        Raises:
            NoPicturesError: there is no such folder.

        """
        if not folder.is_dir():
            raise NoPicturesError("there is no such folder to watch", seen=folder, remedy="check the path")
        self.folder = folder
        self._line = line
        self._journal = journal
        self._observer = telemetry
        self._say = say
        self._settle = settle
        self._give_up = give_up
        self._device = folder.stat().st_dev
        self._pending: Dict[str, float] = {}
        self._whole = True

    @property
    def pending(self) -> int:
        """Pictures that have no verdict yet."""
        return len(self._pending)

    def skip_present(self) -> int:
        """Take what lies in the folder as answered, without a verdict; how many that were."""
        skipped = 0
        for path, facts in self._files():
            if not self._journal.knows(key_of(facts), self._name(path)):
                self._journal.add(key_of(facts), {"file": self._name(path), "skipped": True})
                skipped += 1
        return skipped

    def look(self) -> int:
        """Look through the folder once; how many verdicts were given.

        Raises:
            StorageError: a verdict cannot be written down; the picture stays without one.

        """
        found = {key_of(facts): (facts.st_mtime_ns, path) for path, facts in self._files()}
        names = {key: self._name(path) for key, (_, path) in found.items()}
        given, now = 0, time.monotonic()
        for key, (_, path) in sorted(found.items(), key=lambda item: item[1]):
            if self._journal.knows(key, names[key]):
                continue
            since = self._pending.setdefault(key, now)
            if now - since >= self._settle and self._answer(path, key, now - since >= self._give_up):
                given += 1
        if self._whole and self._there():  # a share that is away has lost no picture
            for key in [key for key in self._pending if key not in found]:
                del self._pending[key]  # changed, so it is another picture now; or taken away before its turn
            if found:  # where nothing is, perhaps a share below is away
                self._journal.forget_absent(names)
        return given

    # -- parts ---------------------------------------------------------------------------------------------

    def _answer(self, path: Path, key: str, last_chance: bool) -> bool:
        """Give a picture its verdict; whether it got one."""
        begun = time.perf_counter()
        try:
            with self._line.lease() as lease:
                model = lease.model
                try:
                    content = read_bytes(path)
                    if not last_chance and not has_its_end(content):
                        return False
                    batch = from_encoded([content], model.preprocessing, [path.name])
                    if key_of(path.stat()) != key:
                        return False  # it was written to meanwhile
                    job = self._line.ask(lease, batch.pixels)
                    assert job.answer is not None
                except FileNotFoundError:
                    return False
                except (PictureError, EngineError) as error:
                    if not last_chance or not path.exists():
                        return False
                    row: Dict[str, Any] = {"verdict": ASK, "error": f"{error.what}: {error.seen}"}
                    self._done(key, path, row, model)
                    return True
                verdict = lease.policy.decide(batch, job.answer)[0]
                seconds = time.perf_counter() - begun
                row = {**verdict.as_dict(model.classes), "ms": round(1000 * seconds, 2)}
                self._done(key, path, row, model)
                self._observer.answered(model, job, [verdict], lambda place: content, seconds)
                return True
        except (NotReadyError, BusyError):
            return False

    def _done(self, key: str, path: Path, row: Dict[str, Any], model: ServedModel) -> None:
        facts = {"at": round(time.time(), 3), "file": self._name(path), **row}
        facts.update(number=model.number, version=model.version)
        written = self._journal.add(key, facts)
        self._pending.pop(key, None)
        self._say(written)

    def _there(self) -> bool:
        """Whether the folder is the one that it was: without its share, a mount point is a folder of its own."""
        try:
            return self.folder.stat().st_dev == self._device
        except OSError:
            return False

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _files(self) -> Iterator[Tuple[Path, os.stat_result]]:
        folders: List[Path] = [self.folder]
        self._whole = True
        while folders:
            try:
                entries = list(os.scandir(str(folders.pop())))
            except OSError as error:  # a share that is away for a moment, or a folder that was removed
                logger.warning("a watched folder cannot be read: %s", error)
                self._whole = False
                continue
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                        yield Path(entry.path), entry.stat()
                except OSError:  # it has just gone
                    continue
