"""What an epoch costs with the frozen-feature cache, without it, and when all levels train.

Three trainings start from the same weights and see the same pictures, views and orders; their epochs take
turns, so that whatever else the machine does falls on all alike. The first epochs of the cached training ask
the frozen levels once for every view; after that each training's quickest epoch counts, since other processes
only ever slow one down. Milliseconds are per picture, on the wall and of the processor; the ratios are
those of the processor.

    python benchmarks/cached_epoch.py [--data DIR] [--base DIR] [--epochs 12] [--threads 2] [--json FILE]

Without ``--data`` surfaces are drawn; without ``--base`` the package's own base model is used if it has one,
and fresh weights otherwise (then accuracies say little).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import torch

from fedsim.synthetic import draw_dataset
from fedspect.data.inspection import inspect_pictures
from fedspect.data.pictures import CheckedPicture
from fedspect.data.preprocess import Preprocessing
from fedspect.data.sources import find_pictures
from fedspect.data.split import split_pictures
from fedspect.data.views import ViewSettings
from fedspect.errors import BaseModelError
from fedspect.model.base import BaseNetwork, default_base, load_base
from fedspect.model.complexity import count
from fedspect.model.levels import LevelledNetwork
from fedspect.model.network import build_network
from fedspect.training.metrics import evaluate
from fedspect.training.settings import TrainingSettings
from fedspect.training.trainer import Trainer

FREEZE_LEVELS = 8


@dataclass
class Arm:
    """One of the three trainings."""

    name: str
    trainer: Trainer
    wall: List[float] = field(default_factory=list)
    processor: List[float] = field(default_factory=list)
    """Milliseconds per picture, one number an epoch."""
    accuracy: float = 0.0


def main() -> None:
    """Run the three trainings and print the table."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        train, held_out, classes = pictures_of(arguments, Path(folder))
        arms = arms_of(arguments, classes, Path(folder))
        print(
            f"{len(train)} pictures of {len(classes)} classes, {arguments.size} px, batch {arguments.batch}, "
            f"{arguments.threads} thread(s), {arguments.epochs} epochs, {arguments.views} of them to fill it"
        )
        for epoch in range(arguments.epochs):
            for arm in arms:
                run_epoch(arm, train, epoch, arguments.epochs)
            print("epoch", epoch, *(f"{arm.name} {arm.processor[-1]:.1f}" for arm in arms), flush=True)
        for arm in arms:
            arm.accuracy = evaluate(arm.trainer.predict(held_out), classes).accuracy
    report(arms, arguments, len(held_out))


def run_epoch(arm: Arm, train: Sequence[CheckedPicture], epoch: int, epochs: int) -> None:
    """One epoch, timed."""
    wall, processor = time.perf_counter(), time.process_time()
    arm.trainer.fit(train, epochs=1, first_epoch=epoch, total_epochs=epochs)
    arm.wall.append(1e3 * (time.perf_counter() - wall) / len(train))
    arm.processor.append(1e3 * (time.process_time() - processor) / len(train))


def report(arms: Sequence[Arm], arguments: argparse.Namespace, held_out: int) -> None:
    """Print the table and the ratios, and write them where asked."""
    hot = {arm.name: min(arm.wall[arguments.views :]) for arm in arms}
    busy = {arm.name: min(arm.processor[arguments.views :]) for arm in arms}
    filling = min(arms[0].processor[: arguments.views])
    print(f"\n{'':14}{'wall ms':>10}{'cpu ms':>10}{'accuracy':>12}   on {held_out} held-out pictures")
    for arm in arms:
        print(f"{arm.name:14}{hot[arm.name]:10.2f}{busy[arm.name]:10.2f}{100 * arm.accuracy:11.2f}%")
    print(f"an epoch that fills the cache takes {filling:.2f} ms of the processor")
    ratios = {name: busy[name] / busy["cached"] for name in ("frozen", "full")}
    print(
        f"an epoch from the cache is {ratios['frozen']:.1f} times as fast as the same one without it, "
        f"and {ratios['full']:.1f} times as fast as one of all levels"
    )
    frozen, full = products_ratios(arms[-1].trainer.network, arguments.size)
    print(
        f"by multiply-adds alone (a backward pass is two forward ones) it would be {frozen:.1f} and {full:.1f}"
    )
    if arguments.json is not None:
        content = {"wall_ms": hot, "cpu_ms": busy, "filling_cpu_ms": filling, "ratios": ratios}
        content["ratios_of_multiply_adds"] = {"frozen": frozen, "full": full}
        content["accuracy"] = {arm.name: arm.accuracy for arm in arms}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


def products_ratios(network: LevelledNetwork, size: int) -> Tuple[float, float]:
    """What the ratios would be if a step cost nothing but its multiply-adds."""
    by_level = list(count(network, size).by_level.values())
    head = 3 * sum(by_level[FREEZE_LEVELS:])
    return (sum(by_level[:FREEZE_LEVELS]) + head) / head, 3 * sum(by_level) / head


def pictures_of(
    arguments: argparse.Namespace, folder: Path
) -> Tuple[List[CheckedPicture], List[CheckedPicture], List[str]]:
    """Training and held-out pictures, the first ``per_class`` of each class."""
    source = arguments.data
    if source is None:
        source = folder / "drawn"
        draw_dataset(source, per_class=arguments.per_class, size=arguments.size, seed=1)
    checked = inspect_pictures(find_pictures(source), overlaps=False).pictures
    by_class: Dict[str, List[CheckedPicture]] = {}
    for picture in checked:
        by_class.setdefault(str(picture.label), []).append(picture)
    chosen = [picture for found in by_class.values() for picture in found[: arguments.per_class]]
    sides = split_pictures(chosen, {"train": 0.75, "test": 0.25}, seed=1)
    return sides["train"], sides["test"], sorted(by_class)


def arms_of(arguments: argparse.Namespace, classes: List[str], folder: Path) -> List[Arm]:
    """The same network three times; orientations alone, so that all three see the very same views."""
    views = ViewSettings(
        crops=False, light=False, contrast=False, noise=False, blur=False, views_per_picture=arguments.views
    )
    settings = TrainingSettings(
        device="cpu", batch_size=arguments.batch, threads=arguments.threads, views=views
    )
    base = base_of(arguments.base)

    def arm(name: str, freeze_levels: int, cache: bool) -> Arm:
        network, preprocessing = start_of(base, classes, arguments.size)
        trainer = Trainer(
            network,
            preprocessing,
            classes,
            settings.model_copy(update={"cache": cache}),
            freeze_levels=freeze_levels,
            base_hash="benchmark",
            cache_folder=folder / "cache",
            seed=1,
        )
        return Arm(name, trainer)

    return [arm("cached", FREEZE_LEVELS, True), arm("frozen", FREEZE_LEVELS, False), arm("full", 0, False)]


def base_of(folder: Optional[Path]) -> Optional[BaseNetwork]:
    """The base model asked for, the package's own, or none."""
    if folder is not None:
        return load_base(folder)
    try:
        return default_base()
    except BaseModelError:
        return None


def start_of(
    base: Optional[BaseNetwork], classes: Sequence[str], size: int
) -> Tuple[LevelledNetwork, Preprocessing]:
    """The weights that all three start from."""
    if base is None:
        network = build_network("cdnv2-a", len(classes), form="condensed", seed=1)
        return network, Preprocessing(size, 3, (0.5,) * 3, (0.25,) * 3)
    card = base.card
    return base.network(classes, seed=1), Preprocessing(
        size, card.channels, tuple(card.mean), tuple(card.std)
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None, help="a folder of pictures")
    parser.add_argument("--base", type=Path, default=None, help="a base model's folder")
    parser.add_argument("--per-class", type=int, default=60, help="pictures a class, a quarter is held out")
    parser.add_argument("--size", type=int, default=224, help="side of the network's input, pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--views", type=int, default=8, help="views a picture in the cache, at most 8")
    parser.add_argument("--epochs", type=int, default=12, help="more than --views")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=None, help="where to write the figures too")
    arguments = parser.parse_args()
    if not 1 <= arguments.views <= 8 or arguments.epochs <= arguments.views:
        parser.error("--views must be 1 to 8, and --epochs more")
    return arguments


if __name__ == "__main__":
    main()
