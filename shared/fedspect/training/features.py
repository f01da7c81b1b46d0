"""Frozen features as batches for the head: from the cache, or computed once.

Two things make a run the same whatever the cache already holds. Features pass through half precision even
when they are used at once, and they are computed in batches of one fixed size, the last one filled up,
because the kernels chosen for another size may round otherwise.

Shapes: N pictures; one row is the answer at the cut, (channels, height, width) of one picture.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedspect.data.views import is_variant, view_token
from fedspect.errors import StorageError
from fedspect.training.cache import FeatureCache
from fedspect.training.devices import precision
from fedspect.training.images import Images, Item, Report
from fedspect.training.segments import Entry

SEGMENT_BYTES = 64 << 20
LARGEST_HALF = 65504.0


def feature_key(base_hash: str, cut: int, preprocessing_key: str, *, half: bool, taps: bool = False) -> str:
    """Name everything but picture and view that a feature depends on.

    ``half``: computed in half precision; ``taps``: rows hold what a closed form looks at as well.

    """
    marks = [*(["half"] if half else []), *(["taps"] if taps else [])]
    content = json.dumps(["features-1", base_hash, cut, preprocessing_key, *marks])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


class FrozenFeatures:
    """Rows of features for pictures and views.

    Args:
        frozen: images to features, in evaluation mode.
        images: draws the views.
        key: ``feature_key`` of the frozen levels and their input.
        folder: of the cache; None keeps features in memory only.
        cache_limit: bytes on disk.
        memory_limit: bytes of features in memory that found no place on disk.

    """

    def __init__(
        self,
        frozen: nn.Module,
        images: Images,
        *,
        key: str,
        folder: Optional[Path],
        cache_limit: int,
        memory_limit: int,
        half: bool,
    ) -> None:
        self.frozen = frozen
        self.images = images
        self.half = half
        self.cache = None if folder is None else FeatureCache(folder, cache_limit, key=key)
        self.memory_left = memory_limit
        self._memory: Dict[Entry, np.ndarray] = {}
        self._storage_problem: Optional[StorageError] = None
        self.computed = 0
        """Rows that the frozen levels had to be asked for."""

    def entry(self, item: Item) -> Entry:
        """What an item is called in the cache."""
        picture, view = item
        return picture.digest, view_token(view, self.images.views)

    def refresh(self) -> None:
        """Learn of what other processes computed; nothing of earlier pools is held in use any more."""
        for entry in [entry for entry in self._memory if is_variant(entry[1])]:
            self.memory_left += self._memory.pop(entry).nbytes
        if self.cache is not None:
            self.cache.release()
            self.cache.refresh()

    def remarks(self) -> List[str]:
        """What a person should know: that the cache could not be written."""
        problem = self._storage_problem
        return [] if problem is None else [f"the feature cache could not be written: {problem}"]

    def prepare(self, items: Sequence[Item], report: Report) -> None:
        """Compute what is not known yet, as far as it can be kept; an interrupt keeps what was finished."""
        missing: Dict[Entry, Item] = {}
        for item in items:
            entry = self.entry(item)
            if self._known(entry) is None:
                missing.setdefault(entry, item)
        waiting: Dict[Entry, np.ndarray] = {}
        size = self._batch_size
        todo = list(missing)
        try:
            for start in range(0, len(todo), size):
                entries = todo[start : start + size]
                rows = self._compute([missing[entry] for entry in entries])
                waiting.update(zip(entries, rows))
                report(min(start + size, len(todo)), len(todo))
                if len(waiting) * rows[0].nbytes >= SEGMENT_BYTES and not self._keep(waiting):
                    return
        finally:
            self._keep(waiting)

    def batch(self, items: Sequence[Item]) -> Tensor:
        """Gather float32 (N, channels, height, width) on the device; what nothing keeps is computed now.

        Raises:
            PictureError: a picture is needed again and can no longer be read.

        """
        rows = [self._known(self.entry(item)) for item in items]
        absent = [place for place, row in enumerate(rows) if row is None]
        size = self._batch_size
        for start in range(0, len(absent), size):
            places = absent[start : start + size]
            for place, row in zip(places, self._compute([items[place] for place in places])):
                rows[place] = row
        gathered = np.stack([row for row in rows if row is not None])
        return torch.from_numpy(gathered).to(self.images.device).float()

    @property
    def _batch_size(self) -> int:
        return 8 if self.images.device.type == "cpu" else 64

    def _known(self, entry: Entry) -> Optional[np.ndarray]:
        row = self._memory.get(entry)
        if row is None and self.cache is not None:
            row = self.cache.find(entry)
        return row

    def _compute(self, items: Sequence[Item]) -> np.ndarray:
        """Ask the frozen levels: float16 (items, *row), computed as one batch of the fixed size."""
        filled = list(items) + [items[-1]] * (self._batch_size - len(items))
        images = self.images.batch(filled)
        with torch.no_grad(), precision(images.device, half=self.half):
            answers: Tensor = self.frozen(images)
        self.computed += len(items)
        halves = answers[: len(items)].float().clamp_(-LARGEST_HALF, LARGEST_HALF).half()
        return np.asarray(halves.cpu().numpy())

    def _keep(self, waiting: Dict[Entry, np.ndarray]) -> bool:
        """Put rows on disk, else in memory; False where neither has room. Empties ``waiting``."""
        rows = dict(waiting)
        waiting.clear()
        if not rows:
            return True
        if self.cache is not None and self._storage_problem is None:
            try:
                if self.cache.add(list(rows), np.stack(list(rows.values()))):
                    return True
            except StorageError as error:
                self._storage_problem = error
        for entry, row in rows.items():
            if row.nbytes > self.memory_left:
                return False
            self.memory_left -= row.nbytes
            self._memory[entry] = row.copy()
        return True
