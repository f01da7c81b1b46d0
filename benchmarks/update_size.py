"""What an update weighs and what its encoding costs: bytes, milliseconds, and what is lost.

One plant trains model A's head on drawn surfaces (or the pictures of ``--data``) for a few rounds, sending
float32. The changes of those rounds are then encoded in every encoding, with error feedback as a plant does
it. "Lost at once" is what one message leaves out, "lost in the end" how far the sum of all messages is from
the sum of all changes; both are shares of the length of what should have been sent.

    python benchmarks/update_size.py [--data DIR] [--rounds 6] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np
import torch

from fedclient.worker.training.plant_worker import PlantWorker
from fedsim.synthetic import draw_dataset
from fedspect.data.inspection import inspect_pictures
from fedspect.data.sources import find_pictures
from fedspect.errors import BaseModelError
from fedspect.model.base import BaseNetwork, default_base, save_base
from fedspect.model.levels import head_state
from fedspect.model.network import build_network
from fedspect.training.settings import TrainingSettings
from fedspect.update.change import StepSize, apply_change, change_between, sum_of
from fedspect.update.encoding import decode, encode
from fedspect.update.error_feedback import encode_with_feedback
from fedspect.update.round_messages import RoundTask
from fedspect.update.schema import Arrays, Schema, version_of

VARIANTS: List[Tuple[str, float]] = [
    ("float32", 1.0),
    ("float16", 1.0),
    ("int8", 1.0),
    ("int3", 1.0),
    ("sparse-int8", 0.4),
    ("sparse-int8", 0.25),
    ("sparse-int8", 0.1),
    ("sparse-int8", 0.03),
]
REPEATS = 7


def starting_base(folder: Path, size: int) -> BaseNetwork:
    """The base model that ships with the package, or an untrained one where there is none."""
    try:
        return default_base()
    except BaseModelError:
        network = build_network("cdnv2-a", 6, channels=1, form="condensed", seed=0)
        names = [f"class {number}" for number in range(6)]
        return save_base(
            folder, network, classes=names, input_size=size, mean=[0.5], std=[0.25], provenance={}
        )


def trained_changes(folder: Path, data: Optional[Path], rounds: int, size: int) -> List[Arrays]:
    """The change of each round of one plant, as it would travel in float32."""
    if data is None:
        data = folder / "pictures"
        draw_dataset(data, per_class=8, size=size, seed=0)
    listing = find_pictures(data)
    pictures = inspect_pictures(listing).pictures[:192]
    classes = sorted({str(picture.label) for picture in pictures})
    base = starting_base(folder / "base", size)
    worker = PlantWorker(
        "plant-1",
        base,
        classes,
        pictures,
        [],
        TrainingSettings(),
        state_folder=folder / "state",
        cache_folder=folder / "cache",
    )
    head = {
        name: value.cpu().numpy().copy()
        for name, value in head_state(worker.network, worker.freeze_levels).items()
    }
    changes = []
    for number in range(1, rounds + 1):
        task = RoundTask(
            run_id="benchmark",
            round=number,
            total_rounds=rounds,
            base_hash=base.content_hash,
            version=version_of(head),
            payload_kind="full",
            payload=encode(head, encoding="float32"),
            reply_encoding="float32",
        )
        reply = worker.work(task)
        if reply.error is not None:
            raise SystemExit(reply.error.message)
        changes.append(decode(reply.payload, Schema.of(head)))
        head = apply_change(head, changes[-1])
        print(f"round {number}: loss {reply.train_loss:.3f}, {reply.seconds['train']:.1f} s", flush=True)
    return changes


def length(arrays: Arrays) -> float:
    """Euclid's length over all weights (running statistics are far longer and travel whole anyway)."""
    return StepSize.of(arrays).weights


def milliseconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The best processor time of a call: what it takes where nothing else runs."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(1000 * (time.process_time() - started))
    return min(times)


def measure(changes: List[Arrays], encoding: str, density: float) -> Dict[str, object]:
    """Send all changes in one encoding."""
    schema = Schema.of(changes[0])
    residual: Optional[Arrays] = None
    sent: Optional[Arrays] = None
    sizes, lost = [], []
    for change in changes:
        owed = sum_of(change, residual)
        encoded = encode_with_feedback(change, residual, encoding=encoding, density=density)
        sizes.append(len(encoded.blob))
        lost.append(length(change_between(encoded.decoded, owed)) / length(owed))
        residual, sent = encoded.residual, sum_of(encoded.decoded, sent)
    assert sent is not None
    total: Arrays = {name: np.sum([change[name] for change in changes], axis=0) for name in changes[0]}
    blob = encode(changes[-1], encoding=encoding, density=density)
    return {
        "encoding": encoding,
        "density": density,
        "bytes": int(statistics.median(sizes)),
        "share": round(statistics.median(sizes) / schema.float32_bytes, 4),
        "encode_ms": round(milliseconds(lambda: encode(changes[-1], encoding=encoding, density=density)), 1),
        "decode_ms": round(milliseconds(lambda: decode(blob, schema)), 1),
        "lost_at_once": round(statistics.median(lost), 4),
        "lost_in_the_end": round(length(change_between(sent, total)) / length(total), 4),
    }


def main() -> None:
    """Train, encode, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="a folder of pictures; drawn surfaces otherwise")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--size", type=int, default=64, help="pixels, where the base model does not say")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        changes = trained_changes(Path(folder), given.data, given.rounds, given.size)
    schema = Schema.of(changes[0])
    print(f"\n{schema.elements} values in {len(schema.specs)} tensors; one thread\n")
    print("| encoding | bytes | of float32 | encode ms | decode ms | lost at once | lost in the end |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    rows = []
    for encoding, density in VARIANTS:
        row = measure(changes, encoding, density)
        rows.append(row)
        name = f"{encoding}, {density:.0%}" if encoding == "sparse-int8" else encoding
        print(
            f"| {name} | {row['bytes']:,} | 1/{1 / float(str(row['share'])):.1f} | {row['encode_ms']} "
            f"| {row['decode_ms']} | {float(str(row['lost_at_once'])):.2%} "
            f"| {float(str(row['lost_in_the_end'])):.2%} |",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
