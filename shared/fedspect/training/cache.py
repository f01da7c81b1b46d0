"""Frozen-feature cache: outputs of the frozen stages on disk in half precision, mapped into memory.

The frozen levels of one base model never change, so what they answer for a view of a picture is computed
once and used in every epoch of every round. The cache is a folder of immutable segments (``segments.py``),
one sub-folder per *key* (base model, cut level, preprocessing), and there is nothing else: no index, no
lock, no server.

- Two processes may use it at once: each adds segments of its own and sees the other's at the next
  ``refresh``; a feature that both computed lies there twice, which is harmless.
- A process killed while writing leaves a temporary file that a later one removes.
- When the folder would outgrow its limit, the segments unused for longest go first, but never one that this
  object is using: when all are in use, new features are refused and live in memory or are computed again. A
  segment that goes while another process maps it stays readable there.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np

from fedspect.errors import DamagedFileError
from fedspect.files import TEMPORARY_PREFIX
from fedspect.training.segments import ALIGNMENT, SUFFIX, Entry, Segment, read_segment, write_segment

STALE_AFTER = 3600.0  # seconds after which a temporary file belongs to a process that was killed
OPEN_SEGMENTS = 128  # mapped at once; each holds a file descriptor
HEADER_SHARE = 128  # bytes of a segment's header that an entry takes at most


class FeatureCache:
    """Features of one key, in a folder shared with other keys and bounded over all of them.

    Args:
        folder: made when the first segment is written.
        limit_bytes: what all segments of all keys may take on disk.
        key: names base model, cut and preprocessing; letters, digits, ``-`` and ``_``.

    """

    def __init__(self, folder: Path, limit_bytes: int, *, key: str) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.key = key
        self._places: Dict[Entry, Tuple[str, int]] = {}
        self._segments: Dict[str, Segment] = {}
        self._mapped: OrderedDict[str, np.ndarray] = OrderedDict()
        self._checked: Set[str] = set()
        self._in_use: Set[str] = set()
        self.refresh()

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._places

    def __len__(self) -> int:
        return len(self._places)

    def refresh(self) -> None:
        """Learn of segments that other processes added, and remove what killed ones left."""
        own = self.folder / self.key
        for path in _files(own):
            if path.name.startswith(TEMPORARY_PREFIX):
                _remove_if_stale(path)
            elif path.suffix == SUFFIX and path.name not in self._segments:
                try:
                    segment = read_segment(path)
                except (DamagedFileError, ValueError, KeyError, TypeError):
                    _remove(path)
                except OSError:
                    continue  # evicted a moment ago
                else:
                    self._adopt(segment)

    def release(self) -> None:
        """Nothing is in use any more: all segments may be evicted when room is needed."""
        self._in_use.clear()

    def add(self, entries: Sequence[Entry], rows: np.ndarray) -> bool:
        """Keep rows, float16 (entries, *shape), as one segment.

        Returns:
            Whether they were kept; False where all that lies here is in use and there is no room.

        Raises:
            DiskFullError, ReadOnlyError, StorageError: nothing was written.

        """
        if not entries or not self._make_room(rows.nbytes + HEADER_SHARE * len(entries) + 2 * ALIGNMENT):
            return False
        path = self.folder / self.key / f"{uuid.uuid4().hex}{SUFFIX}"
        segment = write_segment(path, self.key, entries, rows)
        self._checked.add(path.name)
        self._in_use.add(path.name)
        self._adopt(segment)
        return True

    def find(self, entry: Entry) -> Optional[np.ndarray]:
        """The features of an entry as a read-only float16 view, or None where there are none (any more)."""
        while entry in self._places:
            name, row = self._places[entry]
            rows = self._rows(name)
            if rows is not None:
                found: np.ndarray = rows[row]
                return found
        return None

    def _rows(self, name: str) -> Optional[np.ndarray]:
        """Map a segment, or forget it where it has gone or is damaged."""
        segment = self._segments[name]
        if name not in self._in_use:
            self._in_use.add(name)
            with contextlib.suppress(OSError):
                os.utime(segment.path)
        rows = self._mapped.get(name)
        if rows is not None:
            self._mapped.move_to_end(name)
            return rows
        try:
            rows = segment.rows(check=name not in self._checked)
        except (DamagedFileError, ValueError):
            _remove(segment.path)
        except OSError:
            rows = None
        if rows is None:
            self._forget(name)
            return None
        self._checked.add(name)
        self._mapped[name] = rows
        while len(self._mapped) > OPEN_SEGMENTS:
            self._mapped.popitem(last=False)
        return rows

    def _adopt(self, segment: Segment) -> None:
        name = segment.path.name
        self._segments[name] = segment
        for row, entry in enumerate(segment.entries):
            self._places.setdefault(entry, (name, row))

    def _forget(self, name: str) -> None:
        segment = self._segments.pop(name)
        self._mapped.pop(name, None)
        self._in_use.discard(name)
        for entry in segment.entries:
            if self._places.get(entry, ("", 0))[0] == name:
                del self._places[entry]
        for other in list(self._segments.values()):  # a duplicate elsewhere may take its place
            if other.entries and not set(other.entries).isdisjoint(segment.entries):
                self._adopt(other)

    def _make_room(self, size: int) -> bool:
        """Evict until ``size`` more bytes fit; the least recently used first, none that this object uses."""
        if size > self.limit_bytes:
            return False
        oldest: List[Tuple[float, int, Path]] = []
        total = 0
        for path in _files_of_all_keys(self.folder):
            with contextlib.suppress(OSError):
                temporary = path.name.startswith(TEMPORARY_PREFIX)
                if temporary:
                    _remove_if_stale(path)
                status = path.stat()
                total += status.st_size
                if not temporary and path.name not in self._in_use:
                    oldest.append((status.st_mtime, status.st_size, path))
        for _, freed, path in sorted(oldest):
            if total + size <= self.limit_bytes:
                break
            _remove(path)
            total -= freed
            if path.name in self._segments:
                self._forget(path.name)
        return total + size <= self.limit_bytes


def _files(folder: Path) -> List[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []


def _files_of_all_keys(folder: Path) -> Iterator[Path]:
    try:
        keys = [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return
    for key in keys:
        yield from _files(key)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _remove_if_stale(path: Path) -> None:
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > STALE_AFTER:
            path.unlink()
