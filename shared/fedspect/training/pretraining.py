"""Pre-training: a network learns from public or drawn pictures until it can serve plants as a base model.

CondenseNetV2 learns which connections to keep on the way: they are dropped in stages during the first half of
the schedule, while a group-lasso term makes the filters of a group agree (Yang et al., CVPR 2021, section
3.3; Huang et al., CVPR 2018, section 3.2). Then it is condensed, once; plants only ever see the condensed
form. Peers (a plain CNN, torchvision classifiers) are trained the same way without dropping.

Pictures of several sources share the backbone; each source has a classifier of its own, since a stain in one has
nothing to do with a scratch in another, and each epoch draws from all sources. The first epochs are at a small
size, which costs a fraction. After each epoch a checkpoint can be written: the epochs after it follow from it and
from the seed alone, so a run that was stopped ends with the same weights.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Literal, Optional, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedspect.data.pictures import CheckedPicture
from fedspect.data.preprocess import Preprocessing
from fedspect.data.views import ViewSettings
from fedspect.errors import ModelError
from fedspect.model.base import BaseNetwork
from fedspect.model.condense import condense
from fedspect.model.learned_groups import finish, group_lasso, set_progress
from fedspect.model.levels import LevelledNetwork
from fedspect.model.network import build_network
from fedspect.seeds import derived_seed
from fedspect.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fedspect.training.metrics import Evaluation, evaluate
from fedspect.training.reports import EpochReport, FitReport, Predictions, Progress
from fedspect.training.settings import TrainingSettings
from fedspect.training.steps import Hooks
from fedspect.training.trainer import Trainer

GROWTH_SHARE = 0.6
"""Of the schedule, within which pictures grow to their last size."""
SIZE_STEPS = 4


class PretrainingSettings(TrainingSettings):
    """Training from fresh weights: a longer schedule, SGD as the paper has it, and stronger views."""

    epochs: int = Field(120, ge=2, le=10_000)
    """Passes over the pictures; connections are dropped during the first half."""
    batch_size: int = Field(64, ge=2, le=4096)
    """Pictures a step, 2 to 4096."""
    optimizer: Literal["adamw", "sgd"] = "sgd"
    """"sgd" with Nesterov momentum, as in the paper, or "adamw"."""
    learning_rate: float = Field(0.1, gt=0.0, le=10.0)
    """Step size at the top of the schedule."""
    warmup_epochs: float = Field(3.0, ge=0.0, le=100.0)
    """Epochs over which the step size rises from zero."""
    weight_decay: float = Field(1e-4, ge=0.0, le=1.0)
    """Pull of the weights towards zero; biases and norms are left out."""
    label_smoothing: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the target that is spread over all classes."""
    class_weights: Literal["none", "balanced", "root"] = "root"
    """"root": a class weighs as the inverse square root of its count."""
    group_lasso: float = Field(1e-5, ge=0.0, le=1.0)
    """Weight of the group-lasso term, 1e-5 in the paper."""
    smallest_size: int = Field(0, ge=0, le=4096)
    """Side in pixels of the first epochs; it grows to the training size within 60 % of the schedule. 0: all
    epochs are at the training size."""
    pictures_per_epoch: int = Field(0, ge=0)
    """Pictures that an epoch draws, from each source in proportion to the root of its size; 0 takes all."""
    views: ViewSettings = Field(
        default_factory=lambda: ViewSettings(
            smallest_crop=0.5, light_strength=0.3, contrast_strength=0.4, noise_strength=10.0
        )
    )
    """Augmentation: stronger than in fine-tuning, since nothing is known yet."""


@dataclass(frozen=True)
class Pretrained:
    """A network that is ready to become a base model, and how it got there."""

    network: LevelledNetwork
    """Condensed where the architecture has learned groups."""
    fit: FitReport
    evaluation: Optional[Evaluation]
    """On the held-out pictures, of the network as it is handed out."""
    dropped_weights: int
    """Connections that were dropped on the way."""


def pretrain(
    architecture: str,
    pictures: Sequence[CheckedPicture],
    held_out: Sequence[CheckedPicture],
    classes: Sequence[str],
    preprocessing: Preprocessing,
    settings: PretrainingSettings,
    *,
    seed: int,
    start: Optional[BaseNetwork] = None,
    checkpoint: Optional[Path] = None,
    progress: Optional[Progress] = None,
) -> Pretrained:
    """Train ``architecture`` on ``pictures`` and measure it on ``held_out``.

    Args:
        architecture: a name that ``build_network`` knows.
        pictures: with a class each, named ``source/class``.
        held_out: of the same classes; may be empty.
        classes: in the order of the outputs.
        preprocessing: its size is that of the last epochs.
        settings: how to train.
        seed: decides all.
        start: a base model to go on from, in its plain grouped form; none: fresh weights.
        checkpoint: a file that is written after each epoch, and gone on from where it is there.
        progress: is told how far the work is.

    Raises:
        ModelError: an unknown architecture, a start of another one, or training diverged.
        DataError: pictures cannot be used.
        CheckpointError: the checkpoint is of other settings, pictures or another seed.

    """
    network = _beginning(architecture, classes, preprocessing.channels, seed, start)
    network.to(
        memory_format=torch.channels_last
    )  # dense 1x1 convolutions run twice as fast that way on a CPU
    sources = _sources(classes)
    hooks = Hooks(sources=sources)
    if network.form == "learned":
        hooks = replace(
            hooks,
            before_step=lambda share: set_progress(network, share),
            extra_loss=lambda: settings.group_lasso * group_lasso(network),
        )
    weights = sum(value.numel() for value in network.parameters())
    done = Checkpoint.begin(seed, architecture, preprocessing, settings, pictures, start)
    if checkpoint is not None:
        done = read_checkpoint(checkpoint, done, network)
    trainers: Dict[int, Trainer] = {}
    for epoch in range(len(done.epochs), settings.epochs):
        size = size_at(epoch, preprocessing.size, settings)
        if size not in trainers:
            trainers.clear()  # with the pictures that the last one has decoded
            trainers[size] = _trainer(network, replace(preprocessing, size=size), classes, settings, seed)
        fit = trainers[size].fit(
            drawn(pictures, settings.pictures_per_epoch, seed=seed, epoch=epoch),
            epochs=1,
            first_epoch=epoch,
            total_epochs=settings.epochs,
            progress=progress,
            hooks=hooks,
        )
        done.epochs.extend(fit.epochs)
        if checkpoint is not None:
            write_checkpoint(checkpoint, done, network)
    if network.form == "learned":
        finish(network)
        network = condense(network)
    network.eval()
    evaluation = None
    if held_out:
        # Asked anew, so that the figures are those of the form that plants get.
        answers = _trainer(network, preprocessing, classes, settings, seed).predict(held_out, progress)
        evaluation = evaluate(_within_sources(answers, sources), classes)
    dropped = weights - sum(value.numel() for value in network.parameters())
    return Pretrained(network, _report(done.epochs, pictures, classes), evaluation, dropped)


def size_at(epoch: int, last: int, settings: PretrainingSettings) -> int:
    """Side in pixels at an epoch: four equal steps from the smallest to the last."""
    first = settings.smallest_size or last
    share = min(1.0, epoch / max(1.0, GROWTH_SHARE * settings.epochs))
    return first + round((last - first) * int(share * SIZE_STEPS) / SIZE_STEPS)


def drawn(
    pictures: Sequence[CheckedPicture], count: int, *, seed: int, epoch: int
) -> Sequence[CheckedPicture]:
    """The pictures of an epoch: of each source as many as the root of its size is worth, none twice."""
    if not count or count >= len(pictures):
        return pictures
    sources: Dict[str, List[CheckedPicture]] = defaultdict(list)
    for picture in pictures:
        sources[_source(str(picture.label))].append(picture)
    roots = {name: len(members) ** 0.5 for name, members in sources.items()}
    rng = np.random.default_rng(derived_seed("sources", seed, epoch))
    chosen: List[CheckedPicture] = []
    for name, members in sorted(sources.items()):
        share = max(1, min(len(members), round(count * roots[name] / sum(roots.values()))))
        chosen.extend(members[place] for place in rng.permutation(len(members))[:share])
    return chosen


def _beginning(
    architecture: str, classes: Sequence[str], channels: int, seed: int, start: Optional[BaseNetwork]
) -> LevelledNetwork:
    if start is None:
        return build_network(architecture, len(classes), channels=channels, seed=seed)
    if (start.card.architecture, start.card.channels) != (architecture, channels):
        raise ModelError(
            "the base model to start from is of another kind",
            seen=f"{start.card.architecture}, {start.card.channels} channels",
            accepted=f"{architecture}, {channels} channels",
            remedy="choose its architecture and number of channels, or leave out --start",
        )
    return start.network(classes, seed=seed)


def _source(label: str) -> str:
    return label.partition("/")[0]


def _sources(classes: Sequence[str]) -> Optional[Tensor]:
    """The number of each class's source, (K,); None where there is one source only."""
    if any("/" not in name for name in classes):
        return None
    names = sorted({_source(name) for name in classes})
    return torch.tensor([names.index(_source(name)) for name in classes]) if len(names) > 1 else None


def _within_sources(answers: Predictions, sources: Optional[Tensor]) -> Predictions:
    """Probabilities among the classes of each picture's own source."""
    if sources is None:
        return answers
    owners = sources.numpy()
    own = answers.probabilities * (owners[answers.labels][:, None] == owners[None])
    return replace(answers, probabilities=own / np.maximum(own.sum(1, keepdims=True), 1e-12))


def _report(
    epochs: List[EpochReport], pictures: Sequence[CheckedPicture], classes: Sequence[str]
) -> FitReport:
    labels = [str(picture.label) for picture in pictures]
    return FitReport(
        num_examples=len(pictures),
        counts={name: labels.count(name) for name in classes},
        epochs=epochs,
        best_epoch=len(epochs) - 1,
        stopped_early=False,
        seconds=sum(each.seconds for each in epochs),
        feature_seconds=0.0,
        features_computed=0,
    )


def _trainer(
    network: LevelledNetwork,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    settings: PretrainingSettings,
    seed: int,
) -> Trainer:
    return Trainer(
        network,
        preprocessing,
        list(classes),
        settings,
        freeze_levels=0,
        base_hash="",
        cache_folder=None,
        seed=seed,
    )
