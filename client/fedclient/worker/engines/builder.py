"""Build process: one order as a JSON line on standard input, events as JSON lines on standard output.

It gives way to everything else on the device (processor, disk and, when memory ends, its life), and it ends
when whoever ordered closes its end of standard input, so that no build outlives its caller.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from fedclient.worker.child_process import JsonLines
from fedclient.worker.engines.recipe import BuildOrder, Tell, common_facts, recipe_of
from fedclient.worker.engines.store import EngineStore
from fedclient.worker.engines.stored import StoredEngine
from fedclient.worker.onnx_metadata import read_onnx
from fedspect.errors import EngineError, EngineMemoryError, FedspectError, InterruptedRunError

GONE = 75  # exit code: whoever ordered is no more
STEP = 0.01  # of a phase


def main() -> int:
    """Take the order, build, answer."""
    say = JsonLines()
    give_way()
    order = json.loads(sys.stdin.readline())
    cancelled = threading.Event()
    threading.Thread(target=_listen, args=(cancelled,), daemon=True).start()
    try:
        stored = make(order, say, cancelled)
    except FedspectError as error:
        say.write(error=error.as_dict())
        return error.exit_code
    except MemoryError:
        short = EngineMemoryError(
            "too little memory to build an engine", remedy="free some, then build again"
        )
        say.write(error=short.as_dict())
        return short.exit_code
    except Exception as error:
        traceback.print_exc()
        wrong = EngineError(
            "a build failed", seen=f"{type(error).__name__}: {error}", remedy="report this line"
        )
        say.write(error=wrong.as_dict())
        return wrong.exit_code
    say.write(engine=stored.id)
    return 0


def make(order: Dict[str, Any], say: JsonLines, cancelled: threading.Event) -> StoredEngine:
    """Find or build the engine; errors as ``build_engine``."""
    store = EngineStore(Path(order["store"]), int(order["limit_bytes"]))
    recipe = recipe_of(
        BuildOrder(
            onnx_path=Path(order["onnx"]),
            kind=order["kind"],
            precision=order["precision"],
            max_batch=int(order["max_batch"]),
            timing=store.timing,
            tensorrt_module=order.get("tensorrt_module"),
        )
    )
    say.write(phase="reading")
    source = read_onnx(recipe.order.onnx_path)
    facts = common_facts(source)
    key = recipe.key(source)
    found = store.find(key)
    if found is not None:
        return found
    with store.building(lambda: say.write(phase="waiting")):
        found = store.find(key)  # perhaps the one that was waited for
        if found is not None:
            return found
        tell = teller(say, cancelled, expected_seconds(store, facts, key.kind, key.precision))
        stored = store.add(key, lambda file: {**facts, **recipe.build(source, file, tell)})
    say.write(phase="kept")
    return stored


def teller(say: JsonLines, cancelled: threading.Event, expected: Optional[float]) -> Tell:
    """Tells phases, and shares as often as they grow by a hundredth; raises once the build is cancelled."""
    told: Tuple[str, float] = ("", 0.0)

    def tell(phase: str, fraction: Optional[float] = None) -> None:
        nonlocal told
        if cancelled.is_set():
            raise InterruptedRunError("the build was cancelled", remedy="start it again at any time")
        share = fraction or 0.0
        if phase != told[0] or share - told[1] >= STEP:
            told = (phase, share)
            say.write(phase=phase, fraction=fraction, expected=expected if phase == "building" else None)

    return tell


def expected_seconds(store: EngineStore, facts: Dict[str, Any], kind: str, precision: str) -> Optional[float]:
    """How long the last build of the same part of the same network took."""
    for stored in sorted(store.list(), key=lambda one: -float(one.sidecar.get("built_at", 0))):
        said = stored.sidecar
        same = (stored.key.kind, stored.key.precision, said["metadata"].get("architecture"), said.get("part"))
        if same == (kind, precision, facts["metadata"].get("architecture"), facts["part"]):
            return float(said.get("build_seconds", 0)) or None
    return None


def give_way() -> None:
    """Set the lowest priority of processor and disk, and be the first to go when memory runs out."""
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import psutil

        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def _listen(cancelled: threading.Event) -> None:
    """A line means: stop when you can. The end of input means: nobody waits any more."""
    for _ in sys.stdin:
        cancelled.set()
    os._exit(GONE)


if __name__ == "__main__":
    sys.exit(main())
