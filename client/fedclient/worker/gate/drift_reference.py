"""Drift reference of a deployment: statistics of the plant's own pictures with the new engine.

Golden pictures serve where there are enough, for they never trained the model; a plant with few of them takes
its other pictures too. A reference that somebody made by hand (`fedclient drift init`) is left alone.

Shapes: N pictures, C channels, S the input size.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Callable, List

import numpy as np

from fedclient.worker.engines import LineModel
from fedclient.worker.gate.evidence import BATCH
from fedclient.worker.line.input_guard import InputGuard
from fedclient.worker.line.monitoring.reference_statistics import (
    BY_DEPLOYMENT,
    FEWEST,
    DriftReference,
    batch_statistics,
    joined,
    make_reference,
)
from fedclient.worker.training.setup import Site
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import DamagedFileError, FedspectError

MOST = 300
"""Pictures that are looked at; a few seconds on a processor."""

logger = logging.getLogger("fedclient.worker.gate")


def leave_bounds(folder: Path, pixels: np.ndarray, preprocessing: Preprocessing) -> None:
    """Write what a frame of this plant must be like, for the line's input guard, from uint8 (N, C, S, S)."""
    try:
        if not _made_by_hand(folder):
            InputGuard.of(pixels).save(folder, preprocessing)
    except FedspectError as error:
        logger.warning("no bounds were written: %s", error)


def own_pictures(golden: np.ndarray, site: Callable[[], Site], preprocessing: Preprocessing) -> np.ndarray:
    """How the plant's pictures look, uint8 (N, C, S, S): the ``golden`` ones where there are enough, else all."""
    return golden[:MOST] if len(golden) >= FEWEST else _all_pictures(site(), preprocessing)


def leave_reference(
    folder: Path, model: LineModel, base_hash: str, pixels: np.ndarray, *, window: int
) -> None:
    """Write the reference of ``model``, unless one made by hand is there or the plant has too few pictures.

    Whatever goes wrong is logged: drift is not worth a deployment.
    """
    try:
        if _made_by_hand(folder):
            return
        if len(pixels) < FEWEST:
            logger.info("%d pictures are too few for a drift reference", len(pixels))
            return
        parts = []
        for first in range(0, len(pixels), BATCH):
            batch = pixels[first : first + BATCH]
            answer = model.answer(batch)
            parts.append(batch_statistics(batch, answer.features, answer.probabilities))
        reference = make_reference(joined(parts), model, base_hash, window=window, made_by=BY_DEPLOYMENT)
        reference.save(folder)
    except FedspectError as error:
        logger.warning("no drift reference was written: %s", error)


def _made_by_hand(folder: Path) -> bool:
    try:
        return DriftReference.load(folder).made_by != BY_DEPLOYMENT
    except (FileNotFoundError, DamagedFileError):
        return False


def _all_pictures(site: Site, preprocessing: Preprocessing) -> np.ndarray:
    """Pictures of every side, those that did not train first."""
    sides = sorted(site.split.sides.items(), key=lambda side: side[0] == "train")
    pictures = [picture for _, side in sides for picture in side]
    loaded: List[np.ndarray] = [preprocessing.load(picture.path) for picture in pictures[:MOST]]
    side = preprocessing.size
    return np.stack(loaded) if loaded else np.zeros((0, preprocessing.channels, side, side), np.uint8)
