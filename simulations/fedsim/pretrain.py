"""`fedsim pretrain`: a base model from pictures and drawn surfaces, and a page about it."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fedsim.report.pretraining import PretrainEpoch, PretrainSummary, write_pretrain_report
from fedsim.synthetic import draw_dataset, draw_scenes
from fedspect.errors import ClassError
from fedspect.model.base import WEIGHTS_FILE
from fedspect.model.network import check_architecture
from fedspect.training import base_recipe as making_base
from fedspect.training.base_recipe import BaseRecipe, Stage, TrainedBase, unwatched

SYNTHETIC, SCENES = "synthetic", "scenes"
"""Names of the sources that are drawn, and of their options."""


def make_base(
    plan: BaseRecipe,
    output: Path,
    *,
    synthetic_per_class: int = 0,
    scenes_per_class: int = 0,
    stage: Stage = unwatched,
    command: str = "",
) -> PretrainSummary:
    """Pre-train, save the base model in ``output`` and write its page beside it.

    Args:
        plan: what to learn from, and how.
        output: the base model's folder.
        synthetic_per_class: synthetic surfaces of each of six classes to learn from beside them; 0 for none.
        scenes_per_class: drawn scenes of each material and defect; 0 for none.
        stage: is told how far the work is.
        command: what was typed, for the page.

    Raises:
        DataError, ModelError, StorageError: the pictures, the settings or the place cannot be used.

    """
    check_architecture(plan.architecture)
    described = sorted(plan.sources)
    counts = {SYNTHETIC: synthetic_per_class, SCENES: scenes_per_class}
    for name in (name for name, count in counts.items() if count and name in plan.sources):
        raise ClassError(
            "a source has the name that the drawn surfaces have",
            seen=plan.sources[name],
            remedy=f"rename it, or leave out --{name}",
        )
    with TemporaryDirectory(prefix="fedspect-surfaces-") as drawn:
        for name, count in counts.items():
            if not count:
                continue
            folder = Path(drawn) / name
            sizes = {"per_class": count, "size": plan.training_size, "seed": plan.seed}
            with stage(f"drawing {name}") as progress:
                if name == SCENES:
                    draw_scenes(folder, **sizes, channels=plan.channels, progress=progress)
                else:
                    draw_dataset(folder, **sizes, progress=progress)
            plan = replace(plan, sources={**plan.sources, name: folder}, drawn=(*plan.drawn, name))
            described.append(f"{name} ({count} a class)")
        done = making_base.make_base(
            plan, output, made_by="fedsim pretrain", described=described, stage=stage
        )
    summary = _summary(plan, done, described, (output / WEIGHTS_FILE).stat().st_size, command)
    write_pretrain_report(output, summary)
    return summary


def _summary(
    plan: BaseRecipe, done: TrainedBase, described: list[str], size: int, command: str
) -> PretrainSummary:
    made = done.made
    return PretrainSummary(
        architecture=plan.architecture,
        sources=described,
        pictures=done.pictures,
        classes=list(done.classes),
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
        bytes=size,
        base_hash=done.base.content_hash,
        seconds=done.seconds,
        command=command,
        seed=plan.seed,
        environment={"python": platform.python_version(), "torch": torch.__version__},
    )
