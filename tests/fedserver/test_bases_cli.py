"""`fedserver import-weights` and `fedserver pretrain`: from files to a base model that a run can begin from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headquarters_parts import begun_run, edit, made_workspace
from PIL import Image

from fedserver.cli import app
from fedserver.workspace import Workspace
from fedspect.console import run_app
from fedspect.model.base import load_base


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return made_workspace(tmp_path)


@pytest.fixture
def run(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Any:
    def fedserver(*words: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as ended:
            run_app(app, [*words, "-w", str(workspace.folder)])
        captured = capsys.readouterr()
        assert int(ended.value.code or 0) == code, captured.err
        return json.loads(captured.out) if "--json" in words else captured.out + captured.err

    return fedserver


def pictures(folder: Path) -> Path:
    random = np.random.default_rng(1)
    for name in ("plain", "striped"):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            image = random.normal(128, 20, (48, 48)) + (
                40 * (np.arange(48) % 6 < 3) if name == "striped" else 0
            )
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_pretrain_makes_a_base_model_that_the_settings_can_name(
    workspace: Workspace, run: Any, tmp_path: Path
) -> None:
    source = pictures(tmp_path / "Steel Pictures")
    words = ("--model", "plain-cnn", "--size", "64", "--epochs", "2", "--set", "batch_size=8")
    made = run("pretrain", str(source), *words, "--use", "--json")
    assert made["setting"] == "bases/steel-pictures" and made["used"]
    base = load_base(workspace.bases / "steel-pictures")
    assert base.card.classes == ["Steel Pictures/plain", "Steel Pictures/striped"]
    assert base.card.provenance["made_by"] == "fedserver pretrain"
    assert workspace.base().content_hash == base.content_hash
    assert begun_run(workspace).facts.base_hash == base.content_hash
    assert "of that name" in run("pretrain", str(source), *words, code=61)


def test_settings_keep_their_comments_when_a_base_is_used(
    workspace: Workspace, run: Any, tmp_path: Path
) -> None:
    before = workspace.settings_path.read_text()
    source = pictures(tmp_path / "steel")
    run("pretrain", str(source), "--model", "plain-cnn", "--size", "64", "--epochs", "2", "--use")
    after = workspace.settings_path.read_text()
    assert after == before.replace('base = "../base"', 'base = "bases/steel"')


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such weights file"),
        ({"epoch": 3}, "no weights are found"),
        ({"state_dict": {"layer.weight": torch.zeros(3, 3)}}, "features.init_conv.weight"),
    ],
)
def test_a_file_that_is_no_checkpoint_of_the_authors_says_why_and_leaves_nothing(
    workspace: Workspace, run: Any, tmp_path: Path, content: Any, words: str
) -> None:
    if content is not None:
        torch.save(content, tmp_path / "model.pth.tar")
    assert words in run("import-weights", str(tmp_path / "model.pth.tar"), code=31)
    assert not list(workspace.bases.iterdir()) if workspace.bases.exists() else True


def test_a_name_that_can_be_none_is_refused(run: Any, tmp_path: Path) -> None:
    run("import-weights", str(tmp_path / "model.pth"), "--name", "../evil", code=10)


def test_an_unknown_training_setting_is_answered_with_the_nearest(run: Any, tmp_path: Path) -> None:
    said = run("pretrain", str(tmp_path), "--set", "batchsize=3", code=10)
    assert "batch_size" in said


def test_a_base_of_another_place_can_still_be_named(workspace: Workspace) -> None:
    edit(workspace, base="../base")
    assert workspace.base().architecture == "plain-cnn"
