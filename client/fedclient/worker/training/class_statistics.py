"""A plant's answers to the closed form's exchanges: class statistics of its pictures, and scores of candidates.

What leaves the plant are sums over its pictures. Features come from the same cache as those of rounds, so a
picture that was summed is not looked at again when rounds train on it as it lies.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Dict, Sequence

import numpy as np

from fedspect.data.pictures import CheckedPicture
from fedspect.discriminant.messages import (
    ORIENTATION_GROUPS,
    ScoreReply,
    ScoreTask,
    StatisticsReply,
    StatisticsTask,
    packed,
)
from fedspect.discriminant.scores import distance_counts, score
from fedspect.discriminant.statistics import ClassStatistics, total
from fedspect.errors import ClassError, FedspectError, NoPicturesError, UpdateRefusedError
from fedspect.training.reports import Progress
from fedspect.update.round_messages import ReplyError

if TYPE_CHECKING:
    from fedclient.worker.training.plant_worker import PlantWorker

logger = logging.getLogger(__name__)


def collect(worker: PlantWorker, task: StatisticsTask, progress: Progress) -> StatisticsReply:
    """The class statistics of the training pictures; never raises but for an interrupt."""
    started = time.perf_counter()
    try:
        features = _checked(worker, task.base_hash)
        if not worker.train_pictures:
            raise NoPicturesError("the plant has no training pictures", remedy="check its folder and split")
        labels = _labels(worker, worker.train_pictures)
        classes = len(worker.classes)
        trainer = worker.trainer_for(task.seed)
        found: Dict[str, ClassStatistics] = {}
        for group in task.groups:
            views = ORIENTATION_GROUPS[group]
            parts = (
                ClassStatistics.of(trainer.taps(worker.train_pictures, view, progress), labels, classes)
                for view in views
            )
            found[str(group)] = total(parts, classes, features)
        return StatisticsReply(
            plant=worker.name,
            run_id=task.run_id,
            groups=list(task.groups),
            seconds={"total": round(time.perf_counter() - started, 4)},
            remarks=[remark[:500] for remark in trainer.inputs.remarks()[:20]],
            payload=packed(found),
        )
    except Exception as error:
        _log(error)
        return StatisticsReply(plant=worker.name, run_id=task.run_id, error=ReplyError.of(error))


def rate(worker: PlantWorker, task: ScoreTask, progress: Progress) -> ScoreReply:
    """Scores of candidates on the evaluation pictures; never raises but for an interrupt."""
    try:
        features = _checked(worker, task.base_hash)
        if (task.classes, task.features) != (len(worker.classes), features):
            raise UpdateRefusedError(
                "candidates of a closed form do not fit this plant's network",
                seen=f"{task.classes} classes, {task.features} features",
                accepted=f"{len(worker.classes)} and {features}",
            )
        candidates, chosen = task.read()
        if not worker.evaluation_pictures:
            return ScoreReply(plant=worker.name, run_id=task.run_id)
        labels = _labels(worker, worker.evaluation_pictures)
        taps = worker.trainer_for(task.seed).taps(worker.evaluation_pictures, 0, progress)
        scores = score(candidates, taps, labels)
        if chosen is not None:
            scores = replace(scores, distances=distance_counts(chosen, taps))
        return ScoreReply.of(worker.name, task.run_id, scores)
    except Exception as error:
        _log(error)
        return ScoreReply(plant=worker.name, run_id=task.run_id, error=ReplyError.of(error))


def _checked(worker: PlantWorker, base_hash: str) -> int:
    """How many features the closed form looks at here."""
    worker.check_base(base_hash)
    discriminant = worker.network.discriminant
    if discriminant is None:
        raise UpdateRefusedError(
            "this plant's federation does not begin at a closed form",
            remedy="join again: how the federation begins reaches a plant then",
        )
    return discriminant.whitening.in_features


def _labels(worker: PlantWorker, pictures: Sequence[CheckedPicture]) -> np.ndarray:
    places = {name: place for place, name in enumerate(worker.classes)}
    unknown = sorted({str(picture.label) for picture in pictures} - set(places))
    if unknown:
        raise ClassError(
            "pictures have a class that the federation does not know",
            seen=unknown[0],
            accepted=", ".join(worker.classes),
        )
    return np.asarray([places[str(picture.label)] for picture in pictures], dtype=np.int64)


def _log(error: Exception) -> None:
    expected = isinstance(error, FedspectError)
    logger.warning("the closed form's exchange failed: %s", error, exc_info=not expected)
