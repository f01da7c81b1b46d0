"""Drift detection: whether the line's pictures are still such as the model learned from.

The last ``window`` pictures are measured against the reference every quarter of a window. Two measurements beyond
a limit in a row raise the alarm, two within all limits end it. Where it stands is written to ``line/drift.json``:
``fedclient status`` shows it, and the node tells headquarters.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from pathlib import Path
from typing import Any, Deque, Dict, List, Optional

from fedclient.worker.line.monitoring.reference_statistics import (
    PLAIN,
    BatchStatistics,
    DriftReference,
    joined,
)
from fedclient.worker.line.serving.model_leases import ServedModel
from fedclient.worker.line.settings import DriftSettings
from fedspect.errors import DamagedFileError, StorageError
from fedspect.files import read_json, write_json

NONE, COLLECTING, SAME, ALARM = "no reference", "collecting", "as learned", "drift"
UNSEEN = "no pictures yet"  # there is a reference, and nobody has watched since
IN_A_ROW = 2

WORDS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("lower in contrast", "higher in contrast"),
    "sharpness": ("less sharp", "sharper"),
    "features": ("of another look", "of another look"),
    "spread": ("more or less varied", "more or less varied"),
    "confidence": ("harder to judge", "harder to judge"),
}

logger = logging.getLogger("fedclient.line")


class DriftWatch:
    """Drift detector: measures windows of one model's pictures. Used from one thread."""

    def __init__(self, path: Path, settings: DriftSettings) -> None:
        """``path`` is ``drift.json``."""
        self.path = path
        self.settings = settings
        self.state = NONE
        self.figures: Dict[str, Dict[str, float]] = {}
        self.reasons: List[str] = []
        self._reference: Optional[DriftReference] = None
        self._with_confidence = False
        self._since = time.time()
        self._seen: Deque[BatchStatistics] = deque()
        self._count = 0
        self._fresh = 0
        self._row = 0
        self._model: Optional[ServedModel] = None
        self._base_hash = ""
        self._folder = path.parent
        self._stamp = 0
        self._go_on()

    def begin(self, model: ServedModel, base_hash: str, folder: Path) -> None:
        """Start with a new model; pictures before it do not count.

        An alarm stays until this model's own measurements end it: the pictures are the same.
        """
        self._model, self._base_hash, self._folder = model, base_hash, folder
        self._stamp = self._stamp_of_reference()
        self._reference = None
        try:
            reference = DriftReference.load(folder)
            if reference.fits(model, base_hash):
                self._reference = reference
                self._with_confidence = reference.version == model.version
            else:
                logger.warning("the drift reference is of another base model: `fedclient drift init`")
        except FileNotFoundError:
            pass
        except DamagedFileError as error:
            logger.error("%s", error)
        self._seen.clear()
        self._count = self._fresh = self._row = 0
        if self._reference is None:
            self.figures = {}
            self._become(NONE)
        elif self.state == ALARM:
            self._write()
        else:
            self.figures = {}
            self._become(COLLECTING)

    def add(self, seen: BatchStatistics) -> None:
        """Add answered pictures to the window."""
        model = self._model
        if model is not None and self._stamp_of_reference() != self._stamp:
            self.begin(model, self._base_hash, self._folder)  # `fedclient drift init` made a new one
        if self._reference is None:
            return
        self._seen.append(seen)
        self._count += len(seen)
        self._fresh += len(seen)
        while self._count - len(self._seen[0]) >= self.settings.window:
            self._count -= len(self._seen.popleft())
        if self._count >= self.settings.window and self._fresh >= self.settings.window // 4:
            self._fresh = 0
            self._measure(self._reference)

    def as_dict(self) -> Dict[str, Any]:
        """What stands in ``drift.json``."""
        model = self._model
        return {
            "state": self.state,
            "since": self._since,
            "at": time.time(),
            "window": self.settings.window,
            "version": None if model is None else model.version,
            "number": None if model is None else model.number,
            "reasons": self.reasons,
            "figures": self.figures,
        }

    def _go_on(self) -> None:
        """Restore an alarm that the process before this one raised."""
        said = written(self.path)
        try:
            if said.get("state") == ALARM:
                figures = {str(name): dict(each) for name, each in dict(said["figures"]).items()}
                reasons = [str(reason) for reason in said["reasons"]]
                self._since, self.figures, self.reasons = float(said["since"]), figures, reasons
                self.state = ALARM
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("the drift before this start cannot be read: %s", error)

    def _stamp_of_reference(self) -> int:
        return _changed_at(self._folder / "reference.json")

    def _measure(self, reference: DriftReference) -> None:
        values = reference.statistics.measure(joined(self._seen))
        if not self._with_confidence:
            values.pop("confidence", None)
        self.figures = {
            name: {"value": round(value, 4), "limit": round(limit * self.settings.tolerance, 4)}
            for name, value in values.items()
            for limit in [reference.limits.get(name)]
            if limit is not None
        }
        beyond = [name for name, each in self.figures.items() if abs(each["value"]) > each["limit"]]
        drifted = self.state == ALARM
        self._row = self._row + 1 if bool(beyond) != drifted else 0
        # the plain figures first: they say what to look at
        ordered = sorted(beyond, key=lambda name: name not in PLAIN)
        if beyond:
            self.reasons = [
                f"pictures are {WORDS[name][self.figures[name]['value'] > 0]}"
                f" ({abs(self.figures[name]['value']):.2f}, limit {self.figures[name]['limit']:.2f})"
                for name in ordered
            ]
        if self.state == COLLECTING and not beyond:
            self._become(SAME)
        elif self._row >= IN_A_ROW:
            self._row = 0
            self._become(SAME if drifted else ALARM)
        else:
            self._write()

    def _become(self, state: str) -> None:
        if state != self.state:
            self._since = time.time()
        self.state = state
        if state == ALARM:
            logger.warning("drift: %s", "; ".join(self.reasons))
        else:
            self.reasons = []
        self._write()

    def _write(self) -> None:
        try:
            write_json(self.path, self.as_dict())
        except StorageError as error:
            logger.error("%s", error)


def written(path: Path) -> Dict[str, Any]:
    """What stands in ``drift.json``; empty where there is none, or it cannot be read."""
    try:
        content = read_json(path)
    except (FileNotFoundError, DamagedFileError):
        return {}
    return content if isinstance(content, dict) else {}


def shown(path: Path, reference: Path) -> Dict[str, Any]:
    """The drift report as written; but for a reference that was made since and nobody has used."""
    said = written(path)
    made = _changed_at(reference / "reference.json")
    if said.get("state", NONE) == NONE:
        return {"state": UNSEEN if made > _changed_at(path) else NONE}
    return said


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
