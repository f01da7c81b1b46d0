"""The engines' accuracy beside the trained model's, picture by picture.

    python benchmarks/engine_accuracy.py RUN --data DATA/neu --list DATA/neu_split.csv [--split test] [--json FILE]

RUN is a folder of `fedsim run`: its `model/` is the trained network. It is written as deploy graphs and built into
engines as at a plant (backbone and head, and the whole), in child processes, into a store that is thrown away. Torch
and the engines then answer the same pixels. Printed: accuracy of each, on how many pictures the verdicts are the
same, and the largest difference of a logit as a share of the largest logit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch

from fedclient.worker.deploy import CPU, TENSORRT, DeployFacts, deploy_graphs, save_graphs
from fedclient.worker.deployments import Deployment
from fedclient.worker.deployments.record import deployment_id
from fedclient.worker.engines import EngineStore, LineModel, available_kinds, build_engine, open_model
from fedclient.worker.gate.evidence import BATCH, trained_logits
from fedspect.data.pictures import Picture
from fedspect.data.sources import find_pictures
from fedspect.errors import NoPicturesError
from fedspect.files import write_json
from fedspect.model.base import BaseNetwork, load_base
from fedspect.model.levels import freeze


def main() -> None:
    """Build, ask, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a folder of `fedsim run`")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--list", type=Path, dest="manifest")
    parser.add_argument("--split", default="test", help='the list\'s side; "all" takes every picture')
    parser.add_argument("--kind", default="onnxruntime", choices=("onnxruntime", "tensorrt"))
    parser.add_argument("--precision", default="float32", choices=("float32", "float16"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.kind not in available_kinds():
        parser.error(f"{given.kind} is not here")
    torch.set_num_threads(1)
    model = load_base(given.run / "model")
    listed = find_pictures(given.data, manifest=given.manifest).pictures
    pictures = [each for each in listed if given.split == "all" or each.split == given.split]
    if not pictures:
        raise NoPicturesError("no picture is on that side", seen=given.split)
    with tempfile.TemporaryDirectory() as folder:
        engines = open_engines(model, Path(folder), given.kind, given.precision)
        figures = compare(model, engines, pictures)
    print(f"{figures['pictures']} pictures, {given.kind} {given.precision}, model {model.content_hash[:12]}")
    print(f"trained model: {figures['trained_right']} right, {figures['trained_accuracy']:.4f}")
    for name, each in figures["engines"].items():
        print(
            f"{name}: {each['right']} right, {each['accuracy']:.4f}; the same verdict on"
            f" {each['same_verdict']} of {figures['pictures']}; logits differ by up to"
            f" {each['logits_difference']:.1e} of their scale"
        )
    if given.json:
        write_json(given.json, figures)


def open_engines(model: BaseNetwork, folder: Path, kind: str, precision: str) -> Dict[str, LineModel]:
    """Backbone with head, and the whole, as a plant builds them."""
    classes, card = model.card.classes, model.card
    network = model.network(classes, seed=0).eval()
    freeze(network, card.default_freeze_levels)
    facts = DeployFacts(model.content_hash, classes, model.preprocessing, model.content_hash)
    graphs = deploy_graphs(network, facts, form=TENSORRT if kind == "tensorrt" else CPU)
    save_graphs(folder, graphs)
    store = EngineStore(folder / "engines")
    opened = {}
    for parts in (("backbone", "head"), ("whole",)):
        begun = time.perf_counter()
        ids = {
            part: build_engine(folder / f"{part}.onnx", store, kind=kind, precision=precision).id
            for part in parts
        }
        print(f"built {' and '.join(parts)} in {time.perf_counter() - begun:.1f} s")
        deployment = Deployment(
            id=deployment_id(0, model.content_hash, ids),
            version=model.content_hash,
            number=0,
            classes=tuple(classes),
            base_hash=model.content_hash,
            engines=ids,
        )
        opened[" and ".join(parts)] = open_model(deployment, store)
    return opened


def compare(model: BaseNetwork, engines: Dict[str, LineModel], pictures: List[Picture]) -> Dict[str, Any]:
    """Ask torch and the engines about the same pixels."""
    classes = model.card.classes
    network = model.network(classes, seed=0).eval()
    labels = np.array([classes.index(each.label or "") for each in pictures])
    trained: List[np.ndarray] = []
    answers: Dict[str, List[np.ndarray]] = {name: [] for name in engines}
    for first in range(0, len(pictures), BATCH):
        pixels = np.stack([model.preprocessing.load(each.path) for each in pictures[first : first + BATCH]])
        trained.append(trained_logits(network, model.preprocessing, pixels))
        for name, engine in engines.items():
            answers[name].append(engine.answer(pixels).logits)
    reference = np.concatenate(trained)
    figures: Dict[str, Dict[str, object]] = {}
    for name, rows in answers.items():
        logits = np.concatenate(rows)
        figures[name] = {
            "right": int((logits.argmax(1) == labels).sum()),
            "accuracy": float((logits.argmax(1) == labels).mean()),
            "same_verdict": int((logits.argmax(1) == reference.argmax(1)).sum()),
            "logits_difference": float(np.abs(logits - reference).max() / np.abs(reference).max()),
        }
    right = reference.argmax(1) == labels
    return {
        "pictures": len(pictures),
        "trained_right": int(right.sum()),
        "trained_accuracy": float(right.mean()),
        "engines": figures,
    }


if __name__ == "__main__":
    main()
