"""Any network from training to the line: trained on drawn surfaces, taken through the gate, asked by Triton's client.

For each network: the size of its engine's files, processor time for one picture against CondenseNetV2-A (interleaved,
in one run, so that only the ratio means something), and how far the line's answers are from the trained network's::

    nice -n 15 python benchmarks/deployed_networks.py --networks cdnv2-a mobilenet-v3-small resnet18
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np
import safetensors.numpy
import torch
import tritonclient.grpc as triton

from fedclient.worker.engines import LineModel, open_model
from fedclient.worker.gate.evidence import trained_logits
from fedclient.worker.gate.pipeline import Deployer
from fedclient.worker.settings import WorkerSettings
from fedclient.worker.training.head import head_of
from fedclient.worker.training.setup import Site
from fedsim.commands.overrides import Overrides
from fedsim.run import start_run
from fedspect.files import write_bytes, write_json, write_text
from fedspect.model import freeze as set_frozen
from fedspect.model import load_base
from fedspect.protocol.versions import VersionCard
from fedspect.update.schema import version_of

MODEL = "cdnv2-a"
ROUNDS = 60


def main() -> None:
    """Train, deploy and ask each network; print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=[MODEL, "mobilenet-v3-small", "resnet18"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument(
        "--freeze", type=int, default=3, help="levels of the others that are cut off and frozen"
    )
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        homes = {name: deployed(Path(folder) / name, name, arguments) for name in arguments.networks}
        models = {name: opened(home) for name, home in homes.items()}
        times = race({name: model for name, (model, _) in models.items()}, arguments.size)
        reference = times.get(MODEL, next(iter(times.values())))
        print(f"{arguments.size} px, batch 1, one thread, load average {os.getloadavg()[0]:.1f}\n")
        print("| network | engines | processor time | same class | largest difference of a probability |")
        print("|---|---|---|---|---|")
        for name, home in homes.items():
            size, asked, same, apart = asked_on_the_line(home)
            print(
                f"| {name} | {size / 1e6:.1f} MB | {times[name] / reference:.2f} "
                f"| {same} of {asked} | {apart:.1e} |"
            )


def deployed(folder: Path, name: str, arguments: argparse.Namespace) -> Path:
    """A plant's home whose line runs the network, trained in a small federation."""
    options: Dict[str, object] = {
        "size": arguments.size,
        "plants": 2,
        "partition": "iid",
        "rounds": arguments.rounds,
        "local_epochs": 1,
        "threads": 1,
        "device": "cpu",
    }
    freeze = 8
    if name != MODEL:
        freeze = arguments.freeze
        options.update(model=name, scratch=True)
    wanted = (f"data.synthetic_per_class={arguments.per_class}", "training.learning_rate=0.002")
    run = start_run(folder / "run", Overrides(options, assignments=wanted).settings())
    home = folder / "home"
    base = load_base(run.folder.path / "model")
    base_folder = run.folder.path / "model"
    pictures = run.folder.path / "pictures"
    classes = base.card.classes
    (home / "state").mkdir(parents=True)
    settings = {
        "plant": "plant-1",
        "classes": list(classes),
        "data": str(pictures),
        "base": str(base_folder),
        "state": str(home / "state"),
        "cache": str(home / "cache"),
        "freeze_levels": freeze,
        "training": {"threads": 1},
    }
    write_json(home / "worker.json", settings)
    write_text(home / "engines.toml", "[gate]\nruns = 3\nslower = 1000.0\nlowest_accuracy = 0.0\n")
    network = base.network(classes, seed=0)
    set_frozen(network, freeze)
    head = head_of(network)
    version = home / "versions" / version_of(head)
    card = {
        "number": 1,
        "content_hash": version_of(head),
        "base_hash": base.content_hash,
        "architecture": base.card.architecture,
        "classes": list(classes),
        "freeze_levels": freeze,
        "run": "benchmark",
        "rounds": arguments.rounds,
        "created": "2026-01-01T00:00:00Z",
    }
    write_bytes(version / "head.safetensors", safetensors.numpy.save(head))
    write_json(version / "card.json", VersionCard.model_validate(card).model_dump())
    worker = WorkerSettings.read(home / "worker.json")
    report = Deployer(worker, lambda: Site(worker)).deploy(version)
    if report.outcome != "activated":
        raise SystemExit(f"{name}: {report.outcome}: {report.reasons}")
    return home


def opened(home: Path) -> Tuple[LineModel, Deployer]:
    """What the line of a home runs."""
    worker = WorkerSettings.read(home / "worker.json")
    deployer = Deployer(worker, lambda: Site(worker))
    current = deployer.deployments.current()
    assert current is not None
    return open_model(current, deployer.store), deployer


def race(models: Dict[str, LineModel], size: int) -> Dict[str, float]:
    """Median processor seconds for one picture, in turns."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 1, size, size), dtype=np.uint8)
    seconds: Dict[str, List[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            begun = time.process_time()
            model.answer(pixels)
            seconds[name].append(time.process_time() - begun)
    return {name: statistics.median(each) for name, each in seconds.items()}


def asked_on_the_line(home: Path) -> Tuple[int, int, int, float]:
    """Bytes of the engines; pictures asked, answered as the trained network does, and the largest difference."""
    _, deployer = opened(home)
    current = deployer.deployments.current()
    assert current is not None
    size = sum(deployer.store.get(each).file.stat().st_size for each in current.engines.values())
    base = deployer.base()
    pictures = sorted(Path(json.loads((home / "worker.json").read_text())["data"]).rglob("*.png"))[::4]
    pixels = np.stack([base.preprocessing.load(path) for path in pictures])
    logits = trained_logits(base.network(base.card.classes, seed=0).eval(), base.preprocessing, pixels)
    wanted = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    serve = [sys.executable, "-m", "fedclient.worker.line", "serve", "--address", "127.0.0.1:0", "--no-http"]
    process = subprocess.Popen(
        serve, env={**os.environ, "FEDSPECT_HOME": str(home)}, stderr=subprocess.DEVNULL
    )
    try:
        place = home / "line" / "serve.json"
        while not place.exists():
            if process.poll() is not None:
                raise SystemExit(f"the line of {home} did not start")
            time.sleep(0.05)
        address = json.loads(place.read_text())["address"]
        seen = []
        with triton.InferenceServerClient(address) as client:
            for path in pictures:
                given = triton.InferInput("picture", [1], "BYTES")
                given.set_data_from_numpy(np.array([path.read_bytes()], dtype=object))
                seen.append(
                    np.asarray(client.infer("surface", [given]).as_numpy("probabilities")).reshape(-1)
                )
    finally:
        process.terminate()
        process.wait(30)
    answers = np.stack(seen)
    same = int((answers.argmax(1) == wanted.argmax(1)).sum())
    return size, len(pictures), same, float(np.abs(answers - wanted).max())


if __name__ == "__main__":
    main()
