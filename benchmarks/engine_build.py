"""How long a new head's engine takes to build, against the whole network's: what a round costs a device.

ONNX Runtime's engines are built as a plant builds them, in the builder's process. TensorRT's plans come from
TensorRT-RTX's builder, which needs no GPU (and measures no tactics, so a device's own TensorRT takes longer);
where a GPU and TensorRT are there, theirs are built too, first without a timing cache and then with it. Parts
take turns; what counts is the median. Only the ratios carry over to another machine.

    python benchmarks/engine_build.py [--architecture cdnv2-a] [--size 224] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch

from fedclient.worker.deploy import CPU, TENSORRT, DeployFacts, Form, deploy_graphs, save_graphs
from fedclient.worker.engines import EngineStore, available_kinds, build_engine
from fedclient.worker.engines.tensorrt_build import build_plan
from fedclient.worker.onnx_metadata import read_onnx
from fedspect.data.preprocess import Preprocessing
from fedspect.model import build_network
from fedspect.model.condense import condense
from fedspect.model.learned_groups import finish

PARTS = ("head", "backbone", "whole")
CLASSES = [f"class-{place}" for place in range(6)]
Times = Dict[str, Dict[str, List[float]]]


def main() -> None:
    """Build everything in turns and print the medians."""
    arguments = parse()
    torch.set_num_threads(1)
    times: Times = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graphs = {form.name: exported(folder, form, arguments) for form in (CPU, TENSORRT)}
        for turn in range(arguments.repeats):
            onnxruntime_builds(graphs[CPU.name], folder / f"store-{turn}", times)
            rtx_builds(graphs[TENSORRT.name], times)
            if "tensorrt" in available_kinds():
                tensorrt_builds(graphs[TENSORRT.name], folder / f"store-{turn}", times)
    medians = {row: {part: statistics.median(each[part]) for part in PARTS} for row, each in times.items()}
    print(f"{arguments.architecture}, {arguments.size} px, {arguments.repeats} turns, seconds\n")
    print("| engine | head | backbone | whole | head against whole |\n|---|---|---|---|---|")
    for row, found in medians.items():
        cells = " | ".join(f"{found[part]:.2f}" for part in PARTS)
        print(f"| {row} | {cells} | {found['head'] / found['whole']:.2f} |")
    if arguments.json is not None:
        content = {"architecture": arguments.architecture, "size": arguments.size, "seconds": medians}
        content["repeats"] = arguments.repeats
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def exported(folder: Path, form: Form, arguments: argparse.Namespace) -> Path:
    """The three ONNX files of a network as condensing leaves it."""
    network = build_network(arguments.architecture, len(CLASSES), channels=1, form="learned", seed=1)
    finish(network)
    preprocessing = Preprocessing(arguments.size, 1, (0.5,), (0.25,))
    facts = DeployFacts("benchmark", CLASSES, preprocessing, "0" * 64)
    pixels = "uint8" if form is CPU else "float32"
    save_graphs(folder / form.name, deploy_graphs(condense(network).eval(), facts, form=form, pixels=pixels))
    return folder / form.name


def onnxruntime_builds(graphs: Path, store: Path, times: Times) -> None:
    """From the order to the engine in the store, and the part of it that is not starting a process."""
    for part in PARTS:
        begun = time.perf_counter()
        stored = build_engine(graphs / f"{part}.onnx", EngineStore(store))
        times["ONNX Runtime, with the builder's start"][part].append(time.perf_counter() - begun)
        times["ONNX Runtime, the build alone"][part].append(stored.sidecar["build_seconds"])


def rtx_builds(graphs: Path, times: Times) -> None:
    """Parse and build in this process."""
    try:
        import tensorrt_rtx_bindings as tensorrt
    except ImportError:
        return
    settings: Dict[str, Any] = {"max_batch": 8, "workspace": 256 << 20, "timing": None}
    for precision in ("float32", "float16"):
        for part in PARTS:
            model = read_onnx(graphs / f"{part}.onnx").model
            begun = time.perf_counter()
            build_plan(tensorrt, model, precision=precision, tell=lambda phase, share: None, **settings)
            taken = time.perf_counter() - begun
            times[f"TensorRT-RTX {tensorrt.__version__}, {precision}"][part].append(taken)


def tensorrt_builds(graphs: Path, store: Path, times: Times) -> None:
    """On a device: without a timing cache, then again with what that left."""
    rounds: List[Tuple[str, bool]] = [("without a timing cache", True), ("with one", False)]
    for words, fresh in rounds:
        for part in PARTS:
            kept = EngineStore(store)
            if fresh:
                shutil.rmtree(kept.timing, ignore_errors=True)
            else:
                for old in kept.list():
                    kept.remove(old.id)
            stored = build_engine(graphs / f"{part}.onnx", kept, kind="tensorrt", precision="float16")
            times[f"TensorRT {stored.key.runtime_version}, float16, {words}"][part].append(
                stored.sidecar["build_seconds"]
            )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", default="cdnv2-a")
    parser.add_argument("--size", type=int, default=224, help="side of the network's input, pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None, help="where to write the figures too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
