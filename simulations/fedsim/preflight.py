"""Preflight: the initial model of all plants, and errors that can be known before anything is done.

``check_start`` looks at all of a run that needs no picture to be decoded, so that a slip of the pen is said
before surfaces are drawn, pictures are inspected or a folder is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from fedsim.config import SHIPPED, DataSettings, SimulatedModelSettings, SimulationSettings
from fedsim.partition import check_column
from fedsim.synthetic import CLASSES
from fedspect.data.classes import ClassList, named_classes
from fedspect.data.pictures import Picture
from fedspect.data.sources import Listing, find_pictures
from fedspect.errors import BaseModelError, SplitError, WorkspaceError
from fedspect.model import LevelledNetwork, build_network, default_base, freeze, load_base, save_base
from fedspect.model.base import BaseNetwork
from fedspect.shipped_bases import base_folder
from fedspect.training.devices import choose_device
from fedspect.training.metrics import good_among

SCRATCH_SIZE = 224  # pixels
SCRATCH_MEAN, SCRATCH_STD = 0.5, 0.25
DRAWN = Picture(Path(), "a drawn surface", "its defect")
"""A synthetic surface, as far as a list of pictures would have told of it."""


def check_start(settings: SimulationSettings) -> None:
    """Make sure that model, device and list of pictures fit what was asked for; nothing is written.

    Raises:
        ModelError: no such architecture or base model, or one that cannot freeze so many levels or take
            pictures of that size.
        SettingsError: no such device.
        DataError: the folder or the list of pictures is missing or wrong, or lacks the column that tells
            plants; or a good class is not among the classes.

    """
    model = settings.model
    base = choose_base(model)
    network = _fresh(model, 2, settings.seed) if base is None else base.network(base.card.classes, seed=0)
    freeze(network, levels_to_freeze(model, base))
    side = input_size(model, base)
    network.check_input(torch.empty(1, network.channels, side, side))
    choose_device(settings.training.device)
    pictures: Sequence[Picture] = [DRAWN]
    classes = ClassList(CLASSES)
    if settings.data.folder is not None:
        listing = list_pictures(settings.data.folder, settings.data)
        listing.require()
        pictures, classes = listing.pictures, listing.classes or classes
        if settings.data.split == "manifest" and all(each.split is None for each in pictures):
            raise SplitError(
                "no picture is on a side of its own, so there is no split to take",
                seen=f"{len(pictures)} pictures in {settings.data.folder}",
                accepted="a list (--manifest) with a column split, or folders named train and test",
                remedy="name the list, or choose another --split",
            )
    good_among(classes.names, settings.data.good_classes)
    if settings.plants.partition == "by-column":
        check_column(pictures, settings.plants.column)


def check_apart(settings: SimulationSettings, output: Path) -> None:
    """Make sure that what a run learns from does not lie in the folder that it is to overwrite.

    Raises:
        WorkspaceError: it does.

    """
    for path in (settings.data.folder, settings.data.manifest, settings.model.base):
        if path is not None and output.resolve() in (path.resolve(), *path.resolve().parents):
            raise WorkspaceError(
                "what the run learns from lies in the folder that it would overwrite",
                seen=f"{path} in {output}",
                remedy="choose another --output",
            )


def list_pictures(folder: Path, data: DataSettings) -> Listing:
    """The pictures of a run; nothing is decoded yet. Raises DataError."""
    classes = named_classes(data.classes) if data.classes else None
    return find_pictures(folder, manifest=data.manifest, classes=classes)


def input_size(model: SimulatedModelSettings, base: BaseNetwork | None) -> int:
    """Side in pixels that pictures are scaled to."""
    return model.size or (SCRATCH_SIZE if base is None else base.card.input_size)


def levels_to_freeze(model: SimulatedModelSettings, base: BaseNetwork | None) -> int:
    """How many levels are frozen: as asked for, else what the base recommends, and none of fresh weights."""
    if model.freeze_levels is not None:
        return model.freeze_levels
    return 0 if base is None else base.card.default_freeze_levels


def choose_base(model: SimulatedModelSettings) -> BaseNetwork | None:
    """The base model that was asked for; None for a start from scratch.

    Raises:
        BaseModelError: it is damaged, or of another architecture than was asked for.

    """
    if model.scratch:
        return None
    base = default_base() if model.base is None else load_base(base_folder(model.base))
    if model.architecture not in (None, base.card.architecture):
        raise BaseModelError(
            "the base model is of another architecture than --model",
            seen=f"{base.card.architecture}, asked for {model.architecture}",
            remedy=f"name a base of {model.architecture} (`fedsim pretrain` makes one), or leave --base out to start "
            "from fresh weights",
        )
    return base


def lay_down_base(
    folder: Path, base: BaseNetwork | None, model: SimulatedModelSettings, classes: Sequence[str], seed: int
) -> BaseNetwork:
    """Write the run's own base model: the chosen one at the chosen size, or fresh weights."""
    if base is None:
        network = _fresh(model, len(classes), seed)
        mean, std = [SCRATCH_MEAN] * model.channels, [SCRATCH_STD] * model.channels
        named = list(classes)
        provenance: dict[str, object] = {"start": "fresh weights", "seed": seed}
    else:
        card = base.card
        network, named = base.network(card.classes, seed=seed), card.classes
        mean, std, provenance = card.mean, card.std, card.provenance
    return save_base(
        folder,
        network,
        classes=named,
        input_size=input_size(model, base),
        mean=mean,
        std=std,
        provenance=provenance,
    )


def _fresh(model: SimulatedModelSettings, classes: int, seed: int) -> LevelledNetwork:
    """Fresh weights, in the form that runs later: nothing is pruned in the middle of a federation."""
    architecture = model.architecture or SHIPPED
    return build_network(architecture, classes, channels=model.channels, form="condensed", seed=seed)
