"""How large the networks are, and what a training step of the head costs in learned and in condensed form.

Sizes are counted at 224 px and 1,000 classes beside the published figures (Yang et al., CVPR 2021, table 1), and
what a base model of six classes weighs on the disk. Steps are timed on random features at the cut (8 levels frozen):
forward, backward and an SGD step. ``ms`` is the clock's lower quartile; ``cpu ms`` is processor time, all threads
together, which hardly changes when the machine is shared.

    python benchmarks/model_size.py [--threads 2] [--batch 32] [--steps 30] [--peers] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import torch
import torch.nn.functional as F

from fedspect.model import LevelledNetwork, build_network, freeze, frozen_part, head_part, save_base
from fedspect.model.complexity import count
from fedspect.model.condense import condense
from fedspect.model.learned_groups import finish

PUBLISHED = {"cdnv2-a": "46M / 2.0M", "cdnv2-b": "146M / 3.6M", "cdnv2-c": "309M / 6.1M"}
PEERS = ("plain-cnn", "mobilenet-v3-small")
FREEZE_LEVELS = 8
CLASSES = 6


def sizes(architecture: str) -> Dict[str, Any]:
    """Counts at 1,000 classes; bytes of a condensed base of six classes."""
    size = count(build_network(architecture, 1000, form="condensed"))
    row: Dict[str, Any] = {
        "architecture": architecture,
        "parameters": size.parameters,
        "multiply_adds": size.multiply_adds,
        "operations": size.operations,
        "published": PUBLISHED.get(architecture, ""),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, half in (("float32", False), ("float16", True)):
            network = build_network(architecture, CLASSES, channels=1, form="condensed")
            save_base(
                Path(folder) / name,
                network,
                classes=[f"class {number}" for number in range(CLASSES)],
                input_size=224,
                mean=[0.5],
                std=[0.25],
                provenance={},
                half=half,
            )
            row[f"bytes_{name}"] = (Path(folder) / name / "model.safetensors").stat().st_size
    return row


def head_steps(network: LevelledNetwork, batch: int, steps: int) -> Dict[str, float]:
    """Milliseconds a picture of training the head: by the clock, and of processor time."""
    network.train()
    freeze(network, FREEZE_LEVELS)
    with torch.no_grad():
        shape = frozen_part(network, FREEZE_LEVELS)(torch.zeros(1, network.channels, 224, 224)).shape[1:]
    features = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(batch) % network.num_classes
    head = head_part(network, FREEZE_LEVELS)
    optimiser = torch.optim.SGD(head.parameters(), lr=0.001, momentum=0.9)
    clock: List[float] = []
    processor: List[float] = []
    for _ in range(steps):
        start, start_processor = time.perf_counter(), time.process_time()
        optimiser.zero_grad()
        F.cross_entropy(head(features), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    place = len(clock) // 4
    return {"ms": 1e3 * sorted(clock)[place] / batch, "cpu_ms": 1e3 * sorted(processor)[place] / batch}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--peers", action="store_true", help="count the peers too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    rows = [sizes(name) for name in (*PUBLISHED, *(PEERS if options.peers else ()))]
    print(f"torch {torch.__version__}, {options.threads} thread(s), batch {options.batch}")
    print(
        f"{'model':20}{'parameters':>12}{'mult-adds':>13}{'operations':>13}"
        f"{'published':>14}{'f32 MB':>9}{'f16 MB':>9}"
    )
    for row in rows:
        print(
            f"{row['architecture']:20}{row['parameters']:12,}{row['multiply_adds']:13,}{row['operations']:13,}"
            f"{row['published']:>14}{row['bytes_float32'] / 1e6:9.2f}{row['bytes_float16'] / 1e6:9.2f}"
        )
    heads = []
    print(f"{'head, 8 levels frozen':24}{'ms a picture':>14}{'cpu ms a picture':>18}")
    for architecture in ("cdnv2-a", "cdnv2-b"):
        learned = build_network(architecture, CLASSES)
        finish(learned)
        for network in (learned, condense(learned)):
            heads.append({"architecture": architecture, "form": network.form})
            heads[-1].update(head_steps(network, options.batch, options.steps))  # type: ignore[arg-type]
            print(
                f"{architecture + ' ' + network.form:24}{heads[-1]['ms']:14.2f}{heads[-1]['cpu_ms']:18.2f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"sizes": rows, "heads": heads}, indent=2) + "\n")


if __name__ == "__main__":
    main()
