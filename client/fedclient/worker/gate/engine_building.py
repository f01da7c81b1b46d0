"""Engine building for the gate: the candidate's deploy graphs, written and built for this device's kind of engine."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence, Tuple

from fedclient.worker.deploy import DeployFacts, deploy_graphs, form_named, save_graphs
from fedclient.worker.engines import BuildEvent, EngineStore, available_kinds, build_engine, engine_kind
from fedclient.worker.gate.candidate import Candidate
from fedclient.worker.gate.settings import EngineChoice
from fedspect.errors import EngineError
from fedspect.model.base import BaseNetwork

Report = Callable[[str, int, int], None]
"""Is told a stage, and how much of how much of it is done."""


def build_engines(
    candidate: Candidate,
    base: BaseNetwork,
    classes: Sequence[str],
    choice: EngineChoice,
    store: EngineStore,
    *,
    scratch: Path,
    report: Report,
    cancel: Optional[threading.Event],
) -> Tuple[Dict[str, str], Dict[str, float]]:
    """Engine ids and seconds by part; the backbone's engine is found in the store unless the base is new.

    ``scratch`` holds the graphs meanwhile.

    Raises:
        EngineError: no such kind of engine here, or a build failed.
        StorageError: no space.

    """
    kind, precision = chosen(choice)
    card = candidate.card
    facts = DeployFacts(card.content_hash, classes, base.preprocessing, base.content_hash)
    report("graphs", 0, 1)
    form = form_named(engine_kind(kind).form)
    graphs = deploy_graphs(candidate.network, facts, form=form, freeze_levels=card.freeze_levels)
    shutil.rmtree(scratch, ignore_errors=True)
    engines: Dict[str, str] = {}
    seconds: Dict[str, float] = {}
    try:
        save_graphs(scratch, graphs)
        for part in ["whole"] if graphs.backbone is None else ["backbone", "head"]:
            begun = time.monotonic()
            report(part, 0, 100)

            def told(event: BuildEvent, part: str = part) -> None:
                report(part, int(100 * (event.fraction or 0.0)), 100)

            stored = build_engine(
                scratch / f"{part}.onnx", store, kind=kind, precision=precision, progress=told, cancel=cancel
            )
            engines[part] = stored.id
            seconds[part] = round(time.monotonic() - begun, 3)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return engines, seconds


def chosen(choice: EngineChoice) -> Tuple[str, str]:
    """The kind of engine and its precision; raises ``EngineError`` where there is no such kind."""
    kinds = available_kinds()
    kind = choice.kind if choice.kind != "auto" else (kinds[0] if kinds else "")
    if kind not in kinds:
        raise EngineError(
            "no runtime for engines is installed" if not kind else "this kind of engine cannot be built here",
            seen=kind or None,
            accepted=", ".join(kinds) or None,
            remedy="install onnxruntime for the worker's Python, or change `kind` in engines.toml",
        )
    if choice.precision != "auto":
        return kind, choice.precision
    return kind, engine_kind(kind).precision
