"""Pre-training: a network learns from public or drawn pictures until it can serve plants as a base model.

CondenseNetV2 learns which connections to keep on the way: they are dropped in stages during the first half of
the schedule, while a group-lasso term makes the filters of a group agree (Yang et al., CVPR 2021, section
3.3; Huang et al., CVPR 2018, section 3.2). Then it is condensed, once; plants only ever see the condensed
form. Peers (a plain CNN, torchvision classifiers) are trained the same way without dropping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Literal, Optional, Sequence

import torch
from pydantic import Field

from fedspect.data.pictures import CheckedPicture
from fedspect.data.preprocess import Preprocessing
from fedspect.data.views import ViewSettings
from fedspect.model.condense import condense
from fedspect.model.learned_groups import finish, group_lasso, set_progress
from fedspect.model.levels import LevelledNetwork
from fedspect.model.network import build_network
from fedspect.training.metrics import Evaluation, evaluate
from fedspect.training.reports import FitReport, Progress
from fedspect.training.settings import TrainingSettings
from fedspect.training.steps import Hooks
from fedspect.training.trainer import Trainer


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
    progress: Optional[Progress] = None,
) -> Pretrained:
    """Train ``architecture`` from fresh weights on ``pictures`` and measure it on ``held_out``.

    Raises:
        ModelError: an unknown architecture, or training diverged.
        DataError: pictures cannot be used.

    """
    network = build_network(architecture, len(classes), channels=preprocessing.channels, seed=seed)
    network.to(
        memory_format=torch.channels_last
    )  # dense 1x1 convolutions run twice as fast that way on a CPU
    dropped: Dict[str, int] = {"weights": 0}
    hooks = Hooks()
    if network.form == "learned":

        def drop(share: float) -> None:
            dropped["weights"] += set_progress(network, share)

        hooks = Hooks(before_step=drop, extra_loss=lambda: settings.group_lasso * group_lasso(network))
    trainer = _trainer(network, preprocessing, classes, settings, seed)
    fit = trainer.fit(pictures, epochs=settings.epochs, progress=progress, hooks=hooks)
    if network.form == "learned":
        dropped["weights"] += finish(network)
        network = condense(network)
    network.eval()
    evaluation = None
    if held_out:
        # Asked anew, so that the figures are those of the form that plants get.
        answers = _trainer(network, preprocessing, classes, settings, seed).predict(held_out, progress)
        evaluation = evaluate(answers, classes)
    return Pretrained(network, fit, evaluation, dropped["weights"])


def _trainer(
    network: LevelledNetwork,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    settings: TrainingSettings,
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
