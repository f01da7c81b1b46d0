"""Latency benchmark of the line by kind of engine and precision: every engine in the store of the current version.

Each kind has a deploy graph of its own, so engines belong together by what they are of, and not by their graph.

A picture's time is measured as the line has it: an encoded picture is decoded, resized and answered, one after the
other, in one process. Pictures per second are those of full batches without decoding.
"""

from __future__ import annotations

import io
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np
import psutil
from PIL import Image

from fedclient.worker.deployments import Deployment
from fedclient.worker.engines import EngineStore, LineModel, StoredEngine, open_model
from fedclient.worker.line.reload.reloader import warm_up
from fedclient.worker.line.serving.input_pictures import from_encoded
from fedspect.data.decode import read_bytes
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import EngineError

FEWEST = 20  # answers that a percentile is taken from


@dataclass(frozen=True)
class BenchmarkRow:
    """One kind and precision: milliseconds from encoded picture to answer, and of the engine alone."""

    kind: str
    precision: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    engine_p50_ms: float
    batch: int
    pictures_per_second: float
    memory_mib: Optional[float]
    """What the engines say they hold on the device, else what the process grew by."""
    peak_mib: float
    """The process's largest size so far."""
    answers: int


def bench(
    deployment: Deployment,
    store: EngineStore,
    *,
    seconds: float,
    batch: int,
    threads: int,
    files: Sequence[Path] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> List[BenchmarkRow]:
    """Measure each set of engines for ``seconds``.

    Raises:
        EngineError: none opens.
        PictureError: a file cannot be read.

    """
    sets = list(_engine_sets(deployment, store))
    rows = []
    for place, engines in enumerate(sets):
        chosen = deployment.model_copy(update={"engines": {part: each.id for part, each in engines.items()}})
        first = next(iter(engines.values())).key
        before = psutil.Process().memory_info().rss
        model = open_model(chosen, store, threads=threads)
        try:
            row = _measure(model, first.kind, first.precision, before, seconds, batch, files)
        finally:
            model.close()
        rows.append(row)
        progress(place + 1, len(sets))
    return rows


def as_dict(row: BenchmarkRow) -> Dict[str, object]:
    """For JSON."""
    return asdict(row)


def _engine_sets(deployment: Deployment, store: EngineStore) -> Iterator[Dict[str, StoredEngine]]:
    """The deployed engines first, then others of the same version, each kind and precision once; of several the
    one that was used last.
    """
    deployed = {part: store.get(engine_id) for part, engine_id in deployment.engines.items()}
    yield deployed
    shown = {(each.key.kind, each.key.precision) for each in deployed.values()}
    others: Dict[object, Dict[str, StoredEngine]] = {}
    for stored in store.list():
        for part, each in deployed.items():
            if _alike(stored, each):
                others.setdefault((stored.key.kind, stored.key.precision), {}).setdefault(part, stored)
    for name, engines in others.items():
        if name not in shown and set(engines) == set(deployed):
            yield engines


def _alike(one: StoredEngine, other: StoredEngine) -> bool:
    """Whether two engines are the same part of the same model; a backbone is of no version."""
    names = (
        ("part", "base_hash") if one.sidecar.get("part") == "backbone" else ("part", "base_hash", "version")
    )
    return all(one.sidecar.get(name) == other.sidecar.get(name) for name in names)


def _measure(
    model: LineModel,
    kind: str,
    precision: str,
    before: int,
    seconds: float,
    batch: int,
    files: Sequence[Path],
) -> BenchmarkRow:
    warm_up(model)
    contents = [read_bytes(path) for path in files] or [_drawn(model.preprocessing)]
    whole: List[float] = []
    engine: List[float] = []
    end = time.perf_counter() + seconds / 2
    while time.perf_counter() < end or len(whole) < FEWEST:
        begun = time.perf_counter()
        pixels = from_encoded([contents[len(whole) % len(contents)]], model.preprocessing).pixels
        ready = time.perf_counter()
        model.answer(pixels)
        done = time.perf_counter()
        whole.append(done - begun)
        engine.append(done - ready)
    many = np.repeat(pixels, batch, axis=0)
    try:
        model.answer(many)
    except EngineError:  # an engine for smaller batches
        many = pixels
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds / 2 or not count:
        model.answer(many)
        count += len(many)
    rate = count / (time.perf_counter() - begun)
    p50, p95, p99 = (float(value) for value in np.percentile(whole, (50, 95, 99)) * 1000)
    held = [each.memory_bytes for each in model.engines]
    grown = psutil.Process().memory_info().rss - before
    known = sum(each for each in held if each is not None) if any(held) else grown
    return BenchmarkRow(
        kind,
        precision,
        round(p50, 3),
        round(p95, 3),
        round(p99, 3),
        round(float(np.percentile(engine, 50)) * 1000, 3),
        len(many),
        round(rate, 1),
        round(known / 2**20, 1),
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        len(whole),
    )


def _drawn(preprocessing: Preprocessing) -> bytes:
    """A grey PNG of the model's size, always the same."""
    size = preprocessing.size
    noise = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    return buffer.getvalue()
