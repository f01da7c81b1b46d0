"""Builds a ``PlantWorker`` from a plant's settings: pictures found, checked and split, the base model loaded.

The node writes ``worker.json`` and starts this process with it. Checking the pictures is done at each start, and
what was found of each is remembered, so that only new ones are decoded. It is the site report that the plant's
engineer and headquarters read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence

from fedclient.worker.golden.choosing import GOLDEN, sides_kept
from fedclient.worker.settings import LABELLED, WorkerSettings
from fedclient.worker.training.plant_worker import PlantWorker
from fedspect.data.classes import ClassList
from fedspect.data.inspection import Inspection, inspect_pictures
from fedspect.data.pictures import CheckedPicture
from fedspect.data.sources import TRAINING, Listing, find_pictures, own_split
from fedspect.data.split import SplitLedger, draw
from fedspect.errors import ClassError, NoPicturesError, StorageError
from fedspect.files import read_json, write_json
from fedspect.model.base import load_base
from fedspect.seeds import derived_seed
from fedspect.settings import settings_from
from fedspect.training.settings import TrainingSettings

SHARES = {"train": 0.75, "evaluation": 0.15, GOLDEN: 0.10}
INSPECTION = "inspection.npz"
CAMERA = "camera.json"
MOST_EXAMPLES = 20  # problems that a site report names one by one
LONGEST_DETAIL = 200

Progress = Callable[[int, int], None]


class Site:
    """A plant's pictures as they were found, and the worker that trains on them."""

    def __init__(self, settings: WorkerSettings, progress: Progress = lambda done, total: None) -> None:
        """Find, check and split the pictures; a picture stays on its side when others are added.

        Raises:
            DataError: there are none that can be used.
            StorageError: the list of sides cannot be kept.

        """
        self.settings = settings
        self.inspection = inspected(
            pictures_of(settings), settings.state / INSPECTION, progress, settings.bit_depth
        )
        write_json(settings.state / CAMERA, {"bit_depth": self.inspection.bit_depth})
        seed = derived_seed("split", settings.plant, settings.seed)
        with sides_kept(settings.state) as ledger:
            keep_own_split(ledger, self.inspection.pictures, seed)
            self.split = ledger.assign(self.inspection.pictures, SHARES, seed=seed)

    def report(self) -> Dict[str, Any]:
        """The site report: counts per class and side, what was found wrong, what was given up."""
        problems = [*self.inspection.problems, *self.split.set_aside]
        counts = Counter(picture.label for picture in self.inspection.pictures)
        return {
            "counts": {name: counts[name] for name in self.settings.classes},
            "sides": {name: len(pictures) for name, pictures in self.split.sides.items()},
            "given_up": self.split.given_up,
            "missing_classes": [name for name in self.settings.classes if not counts[name]],
            "problems": dict(Counter(problem.kind for problem in problems)),
            "examples": [
                {"name": one.name[:LONGEST_DETAIL], "kind": one.kind, "detail": one.detail[:LONGEST_DETAIL]}
                for one in problems[:MOST_EXAMPLES]
            ],
        }

    def worker(self) -> PlantWorker:
        """The worker of this site.

        Raises:
            SettingsError: what the federation prescribes cannot be done by this version.
            BaseModelError: the base model is damaged.

        """
        settings = self.settings
        return PlantWorker(
            settings.plant,
            load_base(settings.base),
            settings.classes,
            self.split.sides["train"],
            self.split.sides["evaluation"],
            settings_from(settings.training, TrainingSettings, origin="what headquarters prescribes"),
            freeze_levels=settings.freeze_levels,
            state_folder=settings.state,
            cache_folder=settings.cache,
            seed=settings.seed,
            bit_depth=self.inspection.bit_depth,
            closed_form=settings.closed_form,
        )


def keep_own_split(ledger: SplitLedger, pictures: Sequence[CheckedPicture], seed: int) -> None:
    """Let pictures that come with a split train only where they are to: those to test with are for evaluation."""
    if not own_split([each.picture for each in pictures]):
        return
    for each in pictures:
        golden = draw(seed, "own split", each.group) < SHARES[GOLDEN] / (
            SHARES[GOLDEN] + SHARES["evaluation"]
        )
        trains = (each.picture.split or "train").casefold() in TRAINING
        ledger.reserve(each.digest, "train" if trains else GOLDEN if golden else "evaluation")


def bit_depth_of(state: Path) -> Optional[int]:
    """The depth of the camera, as the plant's pictures were last read; None where their files leave none open.

    Raises:
        FileNotFoundError: they were never looked at.
        DamagedFileError: the file is not what was written.

    """
    depth = dict(read_json(state / CAMERA)).get("bit_depth")
    return None if depth is None else int(depth)


def inspected(
    listing: Listing, remembered: Path, progress: Progress, bit_depth: Optional[int] = None
) -> Inspection:
    """Inspection of the pictures, with cached results of the last one; a full disk only costs the time."""
    try:
        return inspect_pictures(listing, progress=progress, cache=remembered, bit_depth=bit_depth)
    except StorageError:
        return inspect_pictures(listing, progress=progress, bit_depth=bit_depth)


def pictures_of(settings: WorkerSettings) -> Listing:
    """The plant's own pictures, and those of its line that a person has labelled (``fedclient review label``).

    Raises:
        DataError: there are none of its own that can be used.

    """
    classes = ClassList(tuple(settings.classes), settings.aliases)
    own = find_pictures(settings.data, classes=classes)
    try:
        labelled = find_pictures(settings.home / LABELLED, classes=classes)
    except (NoPicturesError, ClassError):  # none yet, or of classes that the federation has no more
        return own
    pictures = [replace(each, name=f"{LABELLED}:{each.name}") for each in labelled.pictures]
    problems = [replace(each, name=f"{LABELLED}:{each.name}") for each in labelled.problems]
    return replace(own, pictures=(*own.pictures, *pictures), problems=(*own.problems, *problems))
