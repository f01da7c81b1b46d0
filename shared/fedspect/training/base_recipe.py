"""Making a base model: pictures of any kind of surface in, a base model's folder out.

Several sources may be learned from at once; their classes have nothing to do with each other, so each class
is named after its source (``xsdd/red_iron``). What is held back for measuring is whole groups of pictures.
`fedsim pretrain` and `fedserver pretrain` are this with their own printing.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch

from fedspect.data.inspection import inspect_pictures
from fedspect.data.pictures import CheckedPicture
from fedspect.data.preprocess import Preprocessing
from fedspect.data.sources import find_pictures
from fedspect.data.split import split_pictures
from fedspect.errors import ClassError, NoPicturesError
from fedspect.model import BaseNetwork, save_base
from fedspect.model.network import check_architecture
from fedspect.training.pretraining import Pretrained, PretrainingSettings, pretrain
from fedspect.training.reports import ProgressEvent
from fedspect.training.tap_moments import write_tap_moments

MEAN, STD = 0.5, 0.25
HELD_OUT_SHARE = 0.1
CHECKPOINT_FILE = "pretraining.checkpoint"
"""In the output folder while a pre-training is not done; the same command goes on from it."""

Stage = Callable[[str], ContextManager[Callable[[int, int], None]]]
"""Opens a stage of the work under a name and yields what is to be told (done, total)."""


@contextlib.contextmanager
def unwatched(name: str) -> Iterator[Callable[[int, int], None]]:
    """Tell nobody how far a stage of the work is."""
    yield lambda done, total: None


@dataclass(frozen=True)
class BaseRecipe:
    """What to make a base model from, and how."""

    sources: Mapping[str, Path]
    """Folders of pictures, or lists, each under the name that its classes are named after."""
    architecture: str
    size: int
    """Side in pixels at which plants will use the base model."""
    training_size: int
    """Side in pixels at which it is pre-trained: smaller is faster, and the network takes any size."""
    channels: int
    settings: PretrainingSettings
    seed: int
    start: Optional[BaseNetwork] = None
    """A base model to go on from; none: fresh weights."""
    drawn: Tuple[str, ...] = ()
    """Names of the sources that were drawn: each picture shows a surface of its own, so none is compared with
    another before pictures are held back."""


@dataclass(frozen=True)
class TrainedBase:
    """A base model that was just made, and how it went."""

    base: BaseNetwork
    made: Pretrained
    classes: Tuple[str, ...]
    pictures: int
    """Pictures that it learned from."""
    seconds: float


def named_sources(paths: Sequence[Path]) -> Dict[str, Path]:
    """Sources under their own names.

    Raises:
        ClassError: two have the same.

    """
    sources = {path.name if path.is_dir() else path.stem: path for path in paths}
    if len(sources) < len(paths):
        raise ClassError(
            "two sources have the same name, so their classes could not be told apart",
            seen=", ".join(str(path) for path in paths),
            remedy="rename one of the folders",
        )
    return sources


def make_base(
    plan: BaseRecipe,
    output: Path,
    *,
    made_by: str,
    described: Optional[Sequence[str]] = None,
    stage: Stage = unwatched,
) -> TrainedBase:
    """Pre-train and save the base model in ``output``.

    A run that was stopped left a checkpoint there: with the same plan it goes on after the last epoch that was done.

    Args:
        plan: what to learn from, and how.
        output: a folder.
        made_by: the command, for the card.
        described: the sources as the card names them; not given: their names.
        stage: is told how far the work is.

    Raises:
        DataError, ModelError, StorageError: the pictures, the settings or the place cannot be used.

    """
    started = time.monotonic()
    check_architecture(plan.architecture)
    pictures = gather(plan.sources, stage, drawn=plan.drawn)
    shares = {"train": 1.0 - HELD_OUT_SHARE, "held-out": HELD_OUT_SHARE}
    sides = split_pictures(pictures, shares, seed=plan.seed)
    classes = sorted({str(each.label) for each in pictures})
    if len(classes) < 2:
        raise ClassError("only one class to learn", seen=classes[0], accepted="at least two")
    mean, std = (MEAN,) * plan.channels, (STD,) * plan.channels
    with stage("pre-training") as progress:
        made = pretrain(
            plan.architecture,
            sides["train"],
            sides["held-out"],
            classes,
            Preprocessing(plan.training_size, plan.channels, mean, std),
            plan.settings,
            seed=plan.seed,
            start=plan.start,
            checkpoint=output / CHECKPOINT_FILE,
            progress=_by_epoch(progress, plan.settings.epochs),
        )
    provenance: Dict[str, Any] = {
        "made_by": made_by,
        "sources": sorted(plan.sources) if described is None else list(described),
        "pictures": len(sides["train"]),
        "training_size": plan.training_size,
        "epochs": plan.settings.epochs,
        "seed": plan.seed,
        "started_from": plan.start.content_hash if plan.start else None,
        "held_out_accuracy": made.evaluation.accuracy if made.evaluation else None,
        "held_out_pictures": made.evaluation.num_examples if made.evaluation else 0,
        "torch": torch.__version__,
    }
    base = save_base(
        output,
        made.network,
        classes=classes,
        input_size=plan.size,
        mean=mean,
        std=std,
        provenance=provenance,
        half=True,
    )
    with stage("measuring the taps"):
        write_tap_moments(output, base, sides["train"])
    (output / CHECKPOINT_FILE).unlink(missing_ok=True)
    return TrainedBase(base, made, tuple(classes), len(sides["train"]), time.monotonic() - started)


def gather(
    sources: Mapping[str, Path], stage: Stage = unwatched, *, drawn: Sequence[str] = ()
) -> List[CheckedPicture]:
    """All usable pictures of all sources, each class named after its source.

    Raises:
        NoPicturesError: a source has none.

    """
    if not sources:
        raise NoPicturesError("nothing to learn from", remedy="name a folder of pictures")
    pictures: List[CheckedPicture] = []
    for name, source in sorted(sources.items()):
        listing = find_pictures(source)
        listing.require()
        with stage(f"checking {name}") as progress:
            compared = False if name in drawn else None
            good = inspect_pictures(listing, progress=progress, overlaps=compared).pictures
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
