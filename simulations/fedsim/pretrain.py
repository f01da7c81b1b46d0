"""Making a base model: pictures of any kind of surface in, a base model's folder and a page about it out.

Several sources may be learned from at once; their classes have nothing to do with each other, so each class
is named after its source (``xsdd/red_iron``). What is held back for measuring is whole groups of pictures.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fedsim.prepare import Stage, unwatched
from fedsim.report.pretraining import PretrainEpoch, PretrainSummary, write_pretrain_report
from fedsim.synthetic import draw_dataset
from fedspect.data.inspection import inspect_pictures
from fedspect.data.pictures import CheckedPicture
from fedspect.data.preprocess import Preprocessing
from fedspect.data.sources import find_pictures
from fedspect.data.split import split_pictures
from fedspect.errors import ClassError, NoPicturesError
from fedspect.model import save_base
from fedspect.model.base import WEIGHTS_FILE
from fedspect.training.pretraining import Pretrained, PretrainingSettings, pretrain
from fedspect.training.reports import ProgressEvent

MEAN, STD = 0.5, 0.25
HELD_OUT_SHARE = 0.1
SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class BasePlan:
    """What to make a base model from, and how."""

    sources: tuple[Path, ...]
    """Folders of pictures, or lists."""
    synthetic_per_class: int
    """Synthetic surfaces of each of six classes to learn from beside them; 0 for none."""
    architecture: str
    size: int
    """Side in pixels at which plants will use the base model."""
    training_size: int
    """Side in pixels at which it is pre-trained: smaller is faster, and the network takes any size."""
    channels: int
    settings: PretrainingSettings
    seed: int


def make_base(
    plan: BasePlan, output: Path, *, stage: Stage = unwatched, command: str = ""
) -> PretrainSummary:
    """Pre-train, save the base model in ``output`` and write its page beside it.

    Raises:
        DataError, ModelError, StorageError: the pictures, the settings or the place cannot be used.

    """
    started = time.monotonic()
    with TemporaryDirectory(prefix="fedspect-surfaces-") as drawn:
        pictures = gather(plan, Path(drawn), stage)
        sides = split_pictures(
            pictures, {"train": 1.0 - HELD_OUT_SHARE, "held-out": HELD_OUT_SHARE}, seed=plan.seed
        )
        classes = sorted({str(each.label) for each in pictures})
        if len(classes) < 2:
            raise ClassError("only one class to learn", seen=classes[0], accepted="at least two")
        preprocessing = Preprocessing(
            plan.training_size, plan.channels, (MEAN,) * plan.channels, (STD,) * plan.channels
        )
        with stage("pre-training") as progress:
            made = pretrain(
                plan.architecture,
                sides["train"],
                sides["held-out"],
                classes,
                preprocessing,
                plan.settings,
                seed=plan.seed,
                progress=_by_epoch(progress, plan.settings.epochs),
            )
    return _save(plan, output, made, classes, len(sides["train"]), time.monotonic() - started, command)


def gather(plan: BasePlan, drawn: Path, stage: Stage) -> list[CheckedPicture]:
    """All usable pictures of all sources, each class named after its source.

    Raises:
        NoPicturesError: a source has none.

    """
    sources = {source.stem: source for source in plan.sources}
    if len(sources) < len(plan.sources):
        raise ClassError(
            "two sources have the same name, so their classes could not be told apart",
            seen=", ".join(str(source) for source in plan.sources),
            remedy="rename one of the folders",
        )
    if plan.synthetic_per_class:
        with stage("drawing surfaces") as progress:
            draw_dataset(
                drawn / SYNTHETIC,
                per_class=plan.synthetic_per_class,
                size=plan.training_size,
                seed=plan.seed,
                progress=progress,
            )
        sources[SYNTHETIC] = drawn / SYNTHETIC
    if not sources:
        raise NoPicturesError("nothing to learn from", remedy="name a folder of pictures, or use --synthetic")
    pictures: list[CheckedPicture] = []
    for name, source in sorted(sources.items()):
        listing = find_pictures(source)
        listing.require()
        with stage(f"checking {name}") as progress:
            good = inspect_pictures(listing, progress=progress).pictures
        pictures.extend(_renamed(each, name) for each in good if each.label is not None)
    if not pictures:
        raise NoPicturesError("no picture can be used", remedy="`fedsim data` says what is wrong with each")
    return pictures


def _renamed(picture: CheckedPicture, source: str) -> CheckedPicture:
    named = replace(picture.picture, label=f"{source}/{picture.label}", name=f"{source}/{picture.name}")
    return replace(picture, picture=named, group=f"{source}/{picture.group}")


def _by_epoch(tell: Callable[[int, int], None], epochs: int) -> Callable[[ProgressEvent], None]:
    def heard(event: ProgressEvent) -> None:
        if event.stage == "training" and event.epoch is not None:
            tell(event.epoch * event.total + event.done, epochs * event.total)

    return heard


def _save(
    plan: BasePlan,
    output: Path,
    made: Pretrained,
    classes: Sequence[str],
    pictures: int,
    seconds: float,
    command: str,
) -> PretrainSummary:
    sources = sorted(source.stem for source in plan.sources)
    if plan.synthetic_per_class:
        sources.append(f"{SYNTHETIC} ({plan.synthetic_per_class} a class)")
    reached = made.evaluation.accuracy if made.evaluation else None
    provenance = {
        "made_by": "fedsim pretrain",
        "sources": sources,
        "pictures": pictures,
        "training_size": plan.training_size,
        "epochs": plan.settings.epochs,
        "seed": plan.seed,
        "held_out_accuracy": reached,
        "held_out_pictures": made.evaluation.num_examples if made.evaluation else 0,
        "torch": torch.__version__,
    }
    base = save_base(
        output,
        made.network,
        classes=classes,
        input_size=plan.size,
        mean=(MEAN,) * plan.channels,
        std=(STD,) * plan.channels,
        provenance=provenance,
        half=True,
    )
    summary = PretrainSummary(
        architecture=plan.architecture,
        sources=sources,
        pictures=pictures,
        classes=list(classes),
        input_size=plan.training_size,
        epochs=[
            PretrainEpoch(
                epoch=each.epoch + 1,
                loss=each.loss,
                accuracy=each.accuracy,
                learning_rate=each.learning_rate,
                seconds=each.seconds,
            )
            for each in made.fit.epochs
        ],
        condensed_at=plan.settings.epochs if made.network.form == "condensed" else None,
        evaluation=made.evaluation,
        parameters=sum(value.numel() for value in made.network.parameters()),
        bytes=(output / WEIGHTS_FILE).stat().st_size,
        base_hash=base.content_hash,
        seconds=seconds,
        command=command,
        seed=plan.seed,
        environment={"python": platform.python_version(), "torch": torch.__version__},
    )
    write_pretrain_report(output, summary)
    return summary
