"""What a picture of pre-training costs: its view, and the network's step by size, form and threads.

    python benchmarks/pretraining_step.py [--pictures 32] [--turns 3] [--json FILE]

All rows take turns in one process, so that a busy machine slows all alike; printed are medians of wall and of processor
time a picture, and how they compare with the first row (112 px, learned groups, as many threads as torch takes).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import torch
import torch.nn.functional as F

from fedspect.data.views import apply_view
from fedspect.files import write_json
from fedspect.model.learned_groups import group_lasso
from fedspect.model.network import build_network
from fedspect.training.pretraining import PretrainingSettings

CLASSES = 100


def step(side: int, form: str, count: int) -> Callable[[], None]:
    """One forward and backward pass of model A."""
    network = build_network("cdnv2-a", CLASSES, channels=1, form=form).to(memory_format=torch.channels_last)
    network.train()
    pictures, labels = torch.randn(count, 1, side, side), torch.randint(0, CLASSES, (count,))

    def take() -> None:
        loss = F.cross_entropy(network(pictures), labels)
        if form == "learned":
            loss = loss + 1e-5 * group_lasso(network)
        loss.backward()  # type: ignore[no-untyped-call]

    return take


def views(side: int, count: int) -> Callable[[], None]:
    """One variant of each picture."""
    picture, settings = torch.randint(0, 256, (1, side, side), dtype=torch.uint8), PretrainingSettings().views

    def take() -> None:
        for view in range(8, 8 + count):
            apply_view(picture, view, "a picture", settings)

    return take


def main() -> None:
    """Take turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    many, count = torch.get_num_threads(), given.pictures
    rows: Dict[str, Tuple[int, Callable[[], None]]] = {
        f"step, 112 px, learned groups, {many} threads": (many, step(112, "learned", count)),
        "step, 112 px, learned groups, 1 thread": (1, step(112, "learned", count)),
        "step, 112 px, condensed, 1 thread": (1, step(112, "condensed", count)),
        "step, 88 px, condensed, 1 thread": (1, step(88, "condensed", count)),
        "step, 64 px, condensed, 1 thread": (1, step(64, "condensed", count)),
        "view, 112 px": (1, views(112, count)),
    }
    taken: Dict[str, List[Tuple[float, float]]] = {name: [] for name in rows}
    for turn in range(given.turns + 1):
        for name, (threads, take) in rows.items():
            torch.set_num_threads(threads)
            wall, processor = time.perf_counter(), time.process_time()
            take()
            if turn:  # the first is for warming up
                taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    results = {
        name: [1000 * statistics.median(column) / count for column in zip(*times)]
        for name, times in taken.items()
    }
    first = next(iter(results.values()))
    for name, (wall, processor) in results.items():
        print(f"{name:44} {wall:7.2f} ms {processor:7.2f} ms of processor   {first[0] / wall:5.2f} x")
    if given.json:
        write_json(given.json, results)


if __name__ == "__main__":
    main()
