"""The page of a pre-training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Callable

from fedsim.report import PretrainEpoch, PretrainSummary, write_pretrain_report
from fedsim.synthetic import CLASSES
from fedspect.training.metrics import Evaluation


def test_the_page_says_what_the_base_model_learned_and_reaches(
    tmp_path: Path, evaluation_of: Callable[[float], Evaluation]
) -> None:
    summary = PretrainSummary(
        architecture="cdnv2-a",
        sources=["X-SDD", "synthetic <surfaces>"],
        pictures=2400,
        classes=list(CLASSES),
        input_size=128,
        epochs=[
            PretrainEpoch(epoch=n, loss=2 / n, accuracy=1 - 1 / n, connections=1 / n) for n in range(1, 9)
        ],
        condensed_at=8,
        evaluation=evaluation_of(0.95),
        condensing_changed=3.1e-7,
        parameters=1_250_000,
        multiply_adds=46_000_000,
        bytes=2_500_000,
        base_hash="ab" * 32,
        seconds=1834,
        command="fedsim pretrain pictures",
    )
    path = write_pretrain_report(tmp_path, summary)
    page = path.read_text().replace("\u202f", " ")
    assert "cdnv2-a learned from 2,400 pictures of 6 classes in 30 min 34 s." in page
    assert "names 95.0 % of 120 pictures rightly" in page
    assert "X-SDD and synthetic &lt;surfaces&gt;" in page
    assert "no logit by more than 3.1e-07 of their scale" in page
    assert re.search(r'<svg role="img" aria-label="Loss and accuracy over 8 epochs', page)
    assert json.loads((tmp_path / "pretraining.json").read_text())["epochs"][7]["loss"] == 0.25
    assert (tmp_path / "figures" / "pretraining.png").stat().st_size > 1000


def test_a_pre_training_without_an_evaluation_has_a_page(tmp_path: Path) -> None:
    page = write_pretrain_report(tmp_path, PretrainSummary(architecture="plain-cnn", pictures=1)).read_text()
    assert "plain-cnn learned from 1 picture of 0 classes" in page
    assert "Each class" not in page
