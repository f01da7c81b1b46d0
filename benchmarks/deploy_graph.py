"""How fast each form of the deploy graph answers, as ratios of interleaved medians.

One ONNX Runtime session per form, one thread, one batch, 224 pixels. All sessions take turns in an order that
changes, and what counts is the processor time that a run took, so that what else the machine does slows all of
them alike. Times drift all the same: only ratios are printed.

    python benchmarks/deploy_graph.py [--architecture cdnv2-a] [--seconds 60] [--batch 1] [--only cpu] [--trained]

``--trained`` gives each copy of a gathered channel in block 5 a norm of its own, as a plant's training does.

torchvision's MobileNetV3-small and -large, EfficientNet-B0 and ResNet-18 stand beside them where torch can export
them.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np
import onnxruntime
import torch
from torch import nn

from fedclient.worker.deploy import AUTHORS, CPU, MASKED, TENSORRT, DeployFacts, Form, deploy_graphs
from fedspect.data.preprocess import Preprocessing
from fedspect.files import write_json
from fedspect.model import build_network
from fedspect.model.condense import condense
from fedspect.model.learned_groups import finish
from fedspect.model.levels import LevelledNetwork

SIZE = 224
PEERS = ("mobilenet-v3-small", "mobilenet-v3-large", "efficientnet-b0", "resnet18")

STEPS: List[Form] = [
    AUTHORS,
    MASKED,
    replace(MASKED, name="masked, norms folded, hard-swish one", fold_norms=True, hard_swish="one"),
    TENSORRT,
    replace(CPU, name="cpu, dense in blocks 1 to 3", dense_reduce=(1, 2, 3)),
    replace(CPU, name="cpu, dense in all blocks", dense_reduce=(1, 2, 3, 4, 5)),
    replace(CPU, name="cpu, 3x3 merged, not in columns", column_spatial=0, merge_spatial=16),
    replace(CPU, name="cpu, in columns up to 8 filters", column_spatial=8, merge_spatial=16),
    replace(CPU, name="cpu, no silent channels", pad_features=0),
    replace(CPU, name="cpu, affine as batch norm", affine="batchnorm"),
    replace(CPU, name="cpu, factors broadcast", excitation="broadcast"),
    CPU,
]


def main() -> None:
    """Race all forms and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", default="cdnv2-a")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the race takes")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="forms beside the authors' own; all by default")
    parser.add_argument("--trained", action="store_true", help="a head whose norms have been trained")
    parser.add_argument("--json", type=Path, help="where to write the ratios too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = learned_then_condensed(arguments.architecture)
    if arguments.trained:
        move_norms(network)
    preprocessing = Preprocessing(SIZE, 1, (0.5,), (0.25,))
    facts = DeployFacts("benchmark", [str(place) for place in range(6)], preprocessing, "0" * 64)
    models = {
        form.name: deploy_graphs(network, facts, form=form, pixels="normalised").whole.SerializeToString()
        for form in STEPS
        if arguments.only is None or form.name in {AUTHORS.name, *arguments.only}
    }
    models.update(peers())
    medians = race(models, arguments.batch, arguments.seconds)
    authors = medians[AUTHORS.name]
    peer = medians.get("mobilenet-v3-small")
    head = ", trained head" if arguments.trained else ""
    print(f"{arguments.architecture}, {SIZE} px, batch {arguments.batch}, one thread{head}")
    print(f"onnxruntime {onnxruntime.__version__}, load average {os.getloadavg()[0]:.1f}\n")
    print("| form | against the authors' form | against MobileNetV3-small |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median / authors:.2f} | {'' if peer is None else f'{median / peer:.2f}'} |")
    if arguments.json is not None:
        write_json(arguments.json, {name: median / authors for name, median in medians.items()})


def learned_then_condensed(architecture: str) -> LevelledNetwork:
    """A network whose groups were chosen and condensed, so copies of a channel share their norm."""
    network = build_network(architecture, 6, channels=1, form="learned", seed=1)
    finish(network)
    return condense(network).eval()


def move_norms(network: LevelledNetwork) -> None:
    """Every channel of every norm of block 5 gets numbers of its own."""
    numbers = torch.Generator().manual_seed(1)
    for module in dict(network.levels())["block5"].modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.9, 1.1, generator=numbers)
            module.bias.data.normal_(0, 0.1, generator=numbers)


def peers() -> Dict[str, bytes]:
    """Classifiers of torchvision with six classes, in colour, as torch exports them."""
    preprocessing = Preprocessing(SIZE, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    facts = DeployFacts("benchmark", [str(place) for place in range(6)], preprocessing, "0" * 64)
    return {
        name: deploy_graphs(
            build_network(name, 6, channels=3, seed=1), facts, pixels="normalised"
        ).whole.SerializeToString()
        for name in PEERS
    }


def race(models: Dict[str, bytes], batch: int, seconds: float) -> Dict[str, float]:
    """Median seconds of processor time by name; the runners take turns until time is up."""
    runners: List[Tuple[str, onnxruntime.InferenceSession, np.ndarray]] = []
    for name, model in models.items():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        channels = session.get_inputs()[0].shape[1]
        pixels = np.random.default_rng(0).normal(size=(batch, channels, SIZE, SIZE)).astype(np.float32)
        session.run(None, {"pixels": pixels})
        runners.append((name, session, pixels))
    times: Dict[str, List[float]] = {name: [] for name in models}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not all(times.values()):
        for name, session, pixels in random.sample(runners, len(runners)):
            start = time.process_time()
            session.run(None, {"pixels": pixels})
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
