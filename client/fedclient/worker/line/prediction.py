"""Verdicts on files and folders, one by one; what cannot be read is named and the rest goes on."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from fedclient.worker.engines.model import LineAnswer
from fedclient.worker.line.decision_policy import DecisionPolicy, Verdict
from fedclient.worker.line.serving.input_pictures import read_encoded
from fedclient.worker.line.serving.model_leases import ServedModel
from fedspect.data.decode import SUFFIXES
from fedspect.errors import NoPicturesError, PictureError

CSV_COLUMNS = (
    "file",
    "verdict",
    "class",
    "confidence",
    "ms",
    "heat_map",
    "error",
    "reasons",
    "number",
    "version",
)


@dataclass(frozen=True)
class Prediction:
    """The verdict on one file, or why there is none; ``seconds`` from opening the file to the verdict."""

    path: Path
    verdict: Optional[Verdict]
    error: Optional[str]
    seconds: float
    pixels: Optional[np.ndarray] = None
    """What the model saw: uint8 (C, S, S)."""
    answer: Optional[LineAnswer] = None

    def row(self, classes: Sequence[str]) -> Dict[str, Any]:
        """For JSON and CSV."""
        row: Dict[str, Any] = {"file": str(self.path)}
        if self.verdict is None:
            return {**row, "error": self.error}
        return {**row, **self.verdict.as_dict(classes), "ms": round(1000 * self.seconds, 2)}


def csv_table(
    rows: Sequence[Mapping[str, Any]], classes: Sequence[str], facts: Mapping[str, Any]
) -> Tuple[List[str], List[Dict[str, Any]]]:
    """Columns and rows for CSV: the version (``facts``) in each row, and a column for each class's probability."""
    table = []
    for row in rows:
        probabilities = {f"probability:{name}": value for name, value in row.get("probabilities", {}).items()}
        reasons = "; ".join(row.get("reasons", ()))
        table.append({**row, **facts, **probabilities, "reasons": reasons})
    return [*CSV_COLUMNS, *(f"probability:{name}" for name in classes)], table


def files_of(sources: Sequence[Path]) -> List[Path]:
    """Files as they are given, folders as the pictures below them in order; each file once.

    Raises:
        NoPicturesError: a path does not exist, or there is no picture at all.

    """
    found: Dict[str, Path] = {}
    for source in sources:
        if source.is_dir():
            for path in _below(source):
                found.setdefault(str(path.resolve()), path)
        elif source.exists():
            found.setdefault(str(source.resolve()), source)
        else:
            raise NoPicturesError("there is no such file or folder", seen=source, remedy="check the path")
    if not found:
        raise NoPicturesError(
            "there are no pictures", seen=", ".join(map(str, sources)), accepted=", ".join(SUFFIXES)
        )
    return list(found.values())


def predict(
    model: ServedModel,
    policy: DecisionPolicy,
    files: Sequence[Path],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Prediction]:
    """A prediction per file, in order.

    Raises:
        EngineError: the engine failed.

    """
    for done, path in enumerate(files, 1):
        begun = time.perf_counter()
        try:
            batch = read_encoded(path, model.preprocessing)
        except PictureError as error:
            yield Prediction(path, None, f"{error.what}: {error.seen}", time.perf_counter() - begun)
            progress(done, len(files))
            continue
        answer = model.answer(batch.pixels)
        verdict = policy.decide(batch, answer)[0]
        seconds = time.perf_counter() - begun
        yield Prediction(path, verdict, None, seconds, batch.pixels[0], answer)
        progress(done, len(files))


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(str(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(place) / name
