"""Trainer: fine-tunes the unfrozen stages (levels) of a network, and runs it for answers.

The same trainer serves a plant in a round, all pictures in one place, and pre-training. What a network's
input is, images or kept features, is behind ``Inputs``; the rest is the plain loop. One seed gives one
result: orders, views and step sizes follow from (seed, epoch), epochs count over all rounds, and torch's
own randomness (dropout of a peer) is seeded by both.

An interrupted ``fit`` leaves the network as it was before it; features that were computed stay in the cache.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Union

import numpy as np
import torch
from torch import Tensor, nn

from fedspect.data.pictures import CheckedPicture
from fedspect.data.preprocess import Preprocessing
from fedspect.data.views import new_view, pooled_view
from fedspect.errors import ClassError, ModelError, NoPicturesError
from fedspect.model.discriminant import TappedFrozenPart, taps_of
from fedspect.model.levels import (
    LevelledNetwork,
    cut_level,
    freeze,
    frozen_part,
    head_part,
    head_state,
    load_head_state,
    tap_places,
    tapped_parts,
)
from fedspect.seeds import derived_seed
from fedspect.training.devices import choose_device, own_randomness, precision
from fedspect.training.features import FrozenFeatures, feature_key
from fedspect.training.images import Images, Item
from fedspect.training.reports import EpochReport, FitReport, Predictions, Progress, ProgressEvent, unheard
from fedspect.training.sampling import epoch_batches
from fedspect.training.settings import TrainingSettings
from fedspect.training.steps import Best, Hooks, Steps

Inputs = Union[Images, FrozenFeatures]
"""Where batches come from: views of pictures, or what the frozen levels answer for them."""

PREDICTION_BATCH = 64


class Trainer:
    """Trains ``network`` from level ``freeze_levels`` on; the first ones are frozen.

    Args:
        network: trained in place; moved to the device that the settings choose.
        preprocessing: of the base model.
        classes: names in the order of the network's outputs.
        settings: how to train.
        freeze_levels: 0 trains everything, and then nothing of what levels answer can be kept.
        base_hash: content hash of the base model that the frozen levels belong to; names their features in
            the cache.
        cache_folder: of the feature cache; None keeps features in memory.
        seed: of orders, and of which view is shown when.

    Raises:
        ModelError: ``freeze_levels`` or the classes do not fit the network.
        SettingsError: the device does not exist.

    """

    def __init__(
        self,
        network: LevelledNetwork,
        preprocessing: Preprocessing,
        classes: Sequence[str],
        settings: TrainingSettings,
        *,
        freeze_levels: int,
        base_hash: str,
        cache_folder: Optional[Path],
        seed: int,
    ) -> None:
        if len(classes) != network.num_classes:
            raise ModelError(
                "the network has not one output a class",
                seen=f"{network.num_classes} outputs, {len(classes)} classes",
                remedy="replace its classifier",
            )
        freeze(network, freeze_levels)
        self.device = choose_device(settings.device)
        self.network = network.to(self.device)
        self.classes = tuple(classes)
        self.settings = settings
        self.freeze_levels = freeze_levels
        self.seed = seed
        self._half = settings.mixed_precision and self.device.type == "cuda"
        images = Images(preprocessing, settings.views, device=self.device, memory_limit=settings.memory_limit)
        self.inputs: Inputs = images
        self._module: nn.Module = network
        if freeze_levels and settings.cache:
            with_taps = network.discriminant is not None
            if with_taps:
                frozen, self._module = tapped_parts(network, freeze_levels, preprocessing.size)
            else:
                frozen, self._module = (
                    frozen_part(network, freeze_levels),
                    head_part(network, freeze_levels),
                )
            self.inputs = FrozenFeatures(
                frozen,
                images,
                key=feature_key(
                    base_hash,
                    cut_level(network, freeze_levels),
                    preprocessing.key,
                    half=self._half,
                    taps=with_taps,
                ),
                folder=cache_folder,
                cache_limit=settings.cache_limit,
                memory_limit=settings.memory_limit,
                half=self._half,
            )

    def fit(
        self,
        pictures: Sequence[CheckedPicture],
        *,
        epochs: int,
        first_epoch: int = 0,
        total_epochs: Optional[int] = None,
        anchor: Optional[Mapping[str, Tensor]] = None,
        validation: Optional[Sequence[CheckedPicture]] = None,
        learning_rate: Optional[float] = None,
        proximal_mu: float = 0.0,
        patience: int = 0,
        progress: Optional[Progress] = None,
        hooks: Optional[Hooks] = None,
    ) -> FitReport:
        """Train for ``epochs``: the part from ``first_epoch`` on of a schedule of ``total_epochs``.

        Args:
            pictures: all with a class.
            epochs: passes over the pictures.
            first_epoch: how many epochs earlier rounds had.
            total_epochs: of all rounds; by default the schedule ends with this call.
            anchor: what FedProx pulls back to, by full name; by default the network as it is now.
            validation: answered after each epoch; the network ends with the weights that answered them best.
            learning_rate: in place of the settings' one.
            proximal_mu: strength of FedProx's pull (Li et al. 2020, eq. 2); 0 is off, 0.001 to 1 usual.
            patience: epochs without a better answer to ``validation`` after which training ends; 0 runs all.
            progress: is told of every batch.
            hooks: of pre-training.

        Raises:
            NoPicturesError, ClassError: nothing to train on, or a class that the network does not know.
            PictureError: a file can no longer be read.
            ModelError: the loss is no longer a number.

        """
        started = time.perf_counter()
        listen = progress or unheard
        self._use_threads()
        labels = self._labels(pictures)
        counts = np.bincount(labels, minlength=len(self.classes)).tolist()
        if validation:
            self._labels(validation)
        start = {name: value.clone() for name, value in self._state().items()}
        steps = Steps(
            self._module,
            {name: value for name, value in self.network.named_parameters() if value.requires_grad},
            self.settings,
            counts=counts,
            anchor=start if anchor is None else anchor,
            learning_rate=self.settings.learning_rate if learning_rate is None else learning_rate,
            proximal_mu=proximal_mu,
            total_epochs=first_epoch + epochs if total_epochs is None else total_epochs,
            hooks=hooks or Hooks(),
            half=self._half,
        )
        self.inputs.refresh()
        computed = self.inputs.computed
        reports: List[EpochReport] = []
        best = Best()
        feature_seconds = 0.0
        try:
            with own_randomness(self._module, self.device) as seed:
                for epoch in range(first_epoch, first_epoch + epochs):
                    seed(derived_seed("torch", self.seed, epoch))
                    epoch_started = time.perf_counter()
                    items = self._items(pictures, epoch)
                    self._prepare(items, listen, epoch)
                    feature_seconds += time.perf_counter() - epoch_started
                    report = self._epoch(steps, items, labels, epoch, listen)
                    if validation:
                        report = self._validated(report, validation, best, listen)
                    reports.append(report)
                    if validation and patience and epoch - best.epoch >= patience:
                        break
        except BaseException:
            load_head_state(self.network, start)
            raise
        finally:
            steps.statistics.restore()
            self.network.eval()
        if best.state is not None:
            load_head_state(self.network, best.state)
        return FitReport(
            num_examples=len(pictures),
            counts=dict(zip(self.classes, counts)),
            epochs=reports,
            best_epoch=first_epoch + len(reports) - 1 if best.state is None else best.epoch,
            stopped_early=len(reports) < epochs,
            seconds=time.perf_counter() - started,
            feature_seconds=feature_seconds,
            features_computed=self.inputs.computed - computed,
            remarks=self.inputs.remarks(),
        )

    def predict(self, pictures: Sequence[CheckedPicture], progress: Optional[Progress] = None) -> Predictions:
        """Answer pictures as they are (view 0).

        Raises:
            PictureError: a file can no longer be read.
            ModelError: an answer is not a number.

        """
        listen = progress or unheard
        self._use_threads()
        items = [(picture, 0) for picture in pictures]
        self._prepare(items, listen, None)
        probabilities = np.zeros((len(items), len(self.classes)), dtype=np.float32)
        self.network.eval()
        with torch.no_grad():
            for first in range(0, len(items), PREDICTION_BATCH):
                batch = self.inputs.batch(items[first : first + PREDICTION_BATCH])
                with precision(self.device, half=self._half):
                    logits = self._module(batch)
                answers = torch.softmax(logits.float(), dim=1).cpu().numpy()
                probabilities[first : first + len(answers)] = answers
                listen(ProgressEvent("prediction", first + len(answers), len(items)))
        if not np.isfinite(probabilities).all():
            raise ModelError(
                "the model's answers are not numbers",
                seen=f"{int((~np.isfinite(probabilities)).any(1).sum())} of {len(items)} pictures",
                remedy="use another base model or version: this one's weights or statistics are spoilt",
            )
        places = {name: place for place, name in enumerate(self.classes)}
        labels = [-1 if picture.label is None else places.get(picture.label, -1) for picture in pictures]
        return Predictions(
            probabilities,
            np.asarray(labels, dtype=np.int64),
            tuple(picture.name for picture in pictures),
            tuple(picture.digest for picture in pictures),
        )

    def taps(
        self, pictures: Sequence[CheckedPicture], view: int, progress: Optional[Progress] = None
    ) -> np.ndarray:
        """What the taps of a network with a closed form see of pictures in one view: float64 (N, D).

        Raises:
            PictureError: a file can no longer be read.

        """
        discriminant = self.network.discriminant
        assert discriminant is not None
        listen = progress or unheard
        self._use_threads()
        items = [(picture, view) for picture in pictures]
        self._prepare(items, listen, None)
        count = discriminant.whitening.in_features
        found = np.zeros((len(items), count))
        self.network.eval()
        with torch.no_grad():
            for first in range(0, len(items), PREDICTION_BATCH):
                batch = self.inputs.batch(items[first : first + PREDICTION_BATCH])
                rows = batch if isinstance(self.inputs, FrozenFeatures) else self._uncached(batch)
                taps = taps_of(rows, count).cpu().numpy()
                found[first : first + len(taps)] = taps
        return found

    def _uncached(self, images: Tensor) -> Tensor:
        """Rows of frozen levels whose answers are not kept."""
        cut = cut_level(self.network, self.freeze_levels)
        levels = [level for _, level in self.network.levels()[:cut]]
        rows: Tensor = TappedFrozenPart(levels, tap_places(self.network, self.freeze_levels))(images)
        return rows

    def _use_threads(self) -> None:
        """Torch keeps the number for each thread of Python, so it is said where the work begins."""
        if self.settings.threads and torch.get_num_threads() != self.settings.threads:
            torch.set_num_threads(self.settings.threads)

    def _state(self) -> Mapping[str, Tensor]:
        return head_state(self.network, self.freeze_levels)

    def _items(self, pictures: Sequence[CheckedPicture], epoch: int) -> List[Item]:
        """Each picture with the view that it shows in this epoch."""
        choose = pooled_view if isinstance(self.inputs, FrozenFeatures) else new_view
        views = self.settings.views
        return [(picture, choose(epoch, picture.digest, views, self.seed)) for picture in pictures]

    def _prepare(self, items: List[Item], listen: Progress, epoch: Optional[int]) -> None:
        renewal = self.settings.views.renew_every
        if epoch and renewal and epoch % renewal == 0:
            self.inputs.refresh()  # the variants of the last pool are in use no more
        self.inputs.prepare(
            items, lambda done, total: listen(ProgressEvent("features", done, total, epoch=epoch))
        )

    def _epoch(
        self, steps: Steps, items: List[Item], labels: np.ndarray, epoch: int, listen: Progress
    ) -> EpochReport:
        started = time.perf_counter()
        self.network.train()
        steps.statistics.begin_epoch()
        batches = epoch_batches(len(items), self.settings.batch_size, seed=self.seed, epoch=epoch)
        done, loss_sum, right = 0, 0.0, 0
        for place, batch in enumerate(batches):
            inputs = self.inputs.batch([items[row] for row in batch])
            truth = torch.from_numpy(labels[batch]).to(self.device)
            loss, hits = steps.step(inputs, truth, epoch + place / len(batches))
            done += len(batch)
            loss_sum += loss * len(batch)
            right += hits
            listen(ProgressEvent("training", done, len(items), loss_sum / done, epoch))
        seconds = time.perf_counter() - started
        return EpochReport(epoch, loss_sum / done, right / done, steps.learning_rate, seconds)

    def _validated(
        self, report: EpochReport, pictures: Sequence[CheckedPicture], best: Best, listen: Progress
    ) -> EpochReport:
        """Add accuracy and log loss on pictures as they are, and keep the weights if they are the best."""
        answers = self.predict(pictures)
        truth = answers.probabilities[np.arange(len(pictures)), answers.labels].astype(np.float64)
        loss = float(-np.log(np.maximum(truth, 1e-12)).mean())
        accuracy = float((answers.probabilities.argmax(1) == answers.labels).mean())
        best.offer(report.epoch, accuracy, loss, self._state())
        listen(ProgressEvent("validation", len(pictures), len(pictures), loss, report.epoch))
        return replace(report, validation_accuracy=accuracy, validation_loss=loss)

    def _labels(self, pictures: Sequence[CheckedPicture]) -> np.ndarray:
        if not pictures:
            raise NoPicturesError(
                "there are no pictures to train on", remedy="check the folder and the split"
            )
        places = {name: place for place, name in enumerate(self.classes)}
        for picture in pictures:
            if picture.label not in places:
                raise ClassError(
                    f"{picture.name} has a class that the network does not know",
                    seen=picture.label,
                    accepted=", ".join(self.classes),
                    remedy="name the class as the federation does, or add an alias",
                )
        return np.asarray([places[str(picture.label)] for picture in pictures], dtype=np.int64)
