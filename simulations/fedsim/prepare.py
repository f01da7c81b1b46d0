"""What comes before the first round: pictures are found and checked, the test set is fixed, the training
pictures are dealt to plants, and the base model is laid down.

Everything is written into the run folder, so that a round, an evaluation or a resumed run never asks again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fedsim.config import DataSettings, SimulationSettings
from fedsim.partition import PlantShare, deal_to_plants
from fedsim.preflight import choose_base, input_size, lay_down_base, levels_to_freeze, list_pictures
from fedsim.run_folder import Prepared, RunFolder, read_pictures, write_pictures
from fedsim.synthetic import draw_dataset
from fedspect.data.decode import read_bytes
from fedspect.data.inspection import inspect_pictures
from fedspect.data.pictures import ABSENT_CLASS, DIGEST_LENGTH, SET_ASIDE, CheckedPicture, Picture, Problem
from fedspect.data.sources import Listing, own_split
from fedspect.data.split import split_pictures
from fedspect.errors import ClassError, DataError, NoPicturesError, PictureError, SplitError
from fedspect.files import write_json

Stage = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Opens a stage of the work under a name and yields what is to be told (done, total)."""

MOST_CHANGED = 5  # names in the error
TRAINING, EVALUATION, TEST = "training", "evaluation", "test"


@dataclass(frozen=True)
class Sides:
    """The pictures of a run: who may train on which, and which are for the test alone."""

    classes: list[str]
    training: list[CheckedPicture]
    test: list[CheckedPicture]
    problems: list[Problem]
    twins: int
    """Test pictures of whose group there are pictures in training too."""
    bit_depth: int | None = None
    """Of the camera, for files of 16 bits."""


@contextlib.contextmanager
def unwatched(name: str) -> Iterator[Callable[[int, int], None]]:
    """A stage that nobody watches."""
    yield lambda done, total: None


def prepare(folder: RunFolder, settings: SimulationSettings, stage: Stage = unwatched) -> Prepared:
    """Lay everything down that a run needs; nothing is done again that was finished before.

    Raises:
        DataError, ModelError, StorageError: the pictures or the base model cannot be used.

    """
    done = folder.read_prepared()
    if done is not None:
        return done
    base = choose_base(settings.model)
    source = settings.data.folder
    if source is None:
        size = input_size(settings.model, base)
        with stage("drawing surfaces") as progress:
            count = settings.data.synthetic_per_class
            draw_dataset(folder.pictures, per_class=count, size=size, seed=settings.seed, progress=progress)
        source = folder.pictures
    listing = list_pictures(source, settings.data)
    sides = choose_sides(listing, settings.data, settings.seed, stage)
    chosen = settings.plants
    shares = deal_to_plants(
        sides.training,
        chosen.count,
        partition=chosen.partition,
        seed=settings.seed,
        alpha=chosen.alpha,
        column=chosen.column,
    )
    model = lay_down_base(folder.base, base, settings.model, sides.classes, settings.seed)
    _write(folder, settings, listing.root, sides, shares)
    freeze_levels = levels_to_freeze(settings.model, base)
    prepared = Prepared(
        classes=sides.classes,
        root="pictures" if settings.data.folder is None else str(listing.root.absolute()),
        plants=[share.name for share in shares],
        freeze_levels=freeze_levels,
        base_hash=model.content_hash,
        closed_form=settings.federation.start == "closed-form" and freeze_levels > 0,
        left_out=sum(problem.left_out for problem in sides.problems),
        bit_depth=sides.bit_depth,
        split=_chosen(listing.pictures, settings.data),
        understood=listing.understood,
    )
    write_json(folder.prepared, prepared.model_dump())
    return prepared


def choose_sides(listing: Listing, data: DataSettings, seed: int, stage: Stage = unwatched) -> Sides:
    """Check the pictures and fix the test set.

    Raises:
        NoPicturesError, ClassError: too little is left to tell classes apart.
        SplitError: a side would be empty.

    """
    listing.require()
    if data.split == "inspect":
        listing = replace(listing, pictures=tuple(replace(each, group=None) for each in listing.pictures))
    with stage("checking pictures") as progress:
        inspection = inspect_pictures(listing, workers=2, progress=progress, bit_depth=data.bit_depth)
    good = [each for each in inspection.pictures if each.label is not None]
    if not good:
        first = inspection.problems[0]
        raise NoPicturesError(
            "no picture can be used",
            seen=f"{first.name}: {first.kind}, {first.detail}; {len(inspection.problems)} such",
            remedy="`fedsim data` names every file and what is wrong with it",
        )
    classes = sorted({str(each.label) for each in good})
    if len(classes) < 2:
        raise ClassError(
            "only one class has pictures that can be used",
            seen=classes[0],
            accepted="at least two",
            remedy="`fedsim data` names every file and what is wrong with it",
        )
    sides = _split(good, data, seed)
    for name in (TRAINING, TEST):
        if not sides[name]:
            raise SplitError(
                f"the {name} side of the split has no pictures",
                seen=", ".join(f"{side}: {len(members)}" for side, members in sides.items()),
                remedy="more pictures, another --split, or a list whose column split holds train and test",
            )
    placed = {each.name for members in sides.values() for each in members}
    aside = [
        Problem(
            each.name,
            SET_ASIDE,
            f'its side in the list, "{each.picture.split or ""}", is neither train nor test',
        )
        for each in good
        if each.name not in placed
    ]
    trained = {each.group for each in sides[TRAINING]}
    twins = sum(each.group in trained for each in sides[TEST])
    asked = list(listing.classes.names) if data.classes and listing.classes else classes
    absent = [
        Problem(name, ABSENT_CLASS, "no picture of it can be used") for name in asked if name not in classes
    ]
    problems = [*inspection.problems, *aside, *absent]
    return Sides(asked, sides[TRAINING], sides[TEST], problems, twins, inspection.bit_depth)


def _chosen(pictures: Sequence[Picture], data: DataSettings) -> str:
    """How the test set is chosen: a split of the pictures' own is kept unless another is asked for."""
    if data.split != "auto":
        return data.split
    return "manifest" if own_split(pictures) else "grouped"


def _split(pictures: list[CheckedPicture], data: DataSettings, seed: int) -> dict[str, list[CheckedPicture]]:
    if _chosen([each.picture for each in pictures], data) == "manifest":
        named = {each.name: (each.picture.split or "").casefold() for each in pictures}
        return {
            TRAINING: [each for each in pictures if named[each.name] in ("train", "training")],
            TEST: [each for each in pictures if named[each.name] in ("test", "testing")],
        }
    shares = {TRAINING: 1.0 - data.test_share, TEST: data.test_share}
    return split_pictures(pictures, shares, seed=seed, by_group=data.split != "random")


def _write(
    folder: RunFolder, settings: SimulationSettings, root: Path, sides: Sides, shares: Sequence[PlantShare]
) -> None:
    share = settings.data.evaluation_share
    for plant in shares:
        lists = {TRAINING: list(plant.pictures), EVALUATION: []}
        if share > 0:
            wanted = {TRAINING: 1.0 - share, EVALUATION: share}
            lists = split_pictures(plant.pictures, wanted, seed=settings.seed)
        path = folder.plants / f"{plant.name}.json"
        write_pictures(path, root, lists, name=plant.name, origin=plant.origin)
    write_pictures(folder.test, root, {TEST: sides.test}, twins_in_training=sides.twins)
    problems = [{**asdict(each), "left_out": each.left_out} for each in sides.problems]
    write_json(folder.problems, problems)


def check_unchanged(folder: RunFolder, prepared: Prepared) -> None:
    """See that all pictures of a run are those that it began with, byte for byte.

    Raises:
        DataError: some are gone or changed; they are named.

    """
    pictures = fixed_test_set(folder, prepared)
    for plant in prepared.plants:
        pictures += [each for side in plant_pictures(folder, prepared, plant).values() for each in side]
    changed = [each.name for each in pictures if not _as_it_was(each)]
    if changed:
        more = f" and {len(changed) - MOST_CHANGED} more" if len(changed) > MOST_CHANGED else ""
        raise DataError(
            f"{len(changed)} of {len(pictures)} pictures were changed or removed since the run began",
            seen=", ".join(changed[:MOST_CHANGED]) + more,
            remedy="bring them back as they were, or start a new run",
        )


def _as_it_was(picture: CheckedPicture) -> bool:
    try:
        return hashlib.sha256(read_bytes(picture.path)).hexdigest()[:DIGEST_LENGTH] == picture.digest
    except PictureError:
        return False


# -- reading it back ---------------------------------------------------------------------------------------


def plant_pictures(folder: RunFolder, prepared: Prepared, plant: str) -> dict[str, list[CheckedPicture]]:
    """A plant's pictures: those it trains on and those it keeps for evaluation."""
    return read_pictures(folder.plants / f"{plant}.json", folder.root(prepared))


def fixed_test_set(folder: RunFolder, prepared: Prepared) -> list[CheckedPicture]:
    """The fixed test set."""
    return read_pictures(folder.test, folder.root(prepared))[TEST]


def counts(pictures: Sequence[CheckedPicture]) -> dict[str, int]:
    """Pictures by class."""
    return dict(sorted(Counter(str(each.label) for each in pictures).items()))
