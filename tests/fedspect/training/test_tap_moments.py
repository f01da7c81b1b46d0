from __future__ import annotations

from pathlib import Path
from typing import List

import safetensors
import safetensors.torch
import torch

from fedspect.data.pictures import CheckedPicture
from fedspect.model.base import BaseNetwork, save_base
from fedspect.training.tap_moments import MOMENTS_FILE, write_tap_moments
from training_pictures import CLASSES, small_network


def base_in(folder: Path, levels: int) -> BaseNetwork:
    network = small_network()
    network.default_freeze_levels = levels
    return save_base(folder, network, classes=CLASSES, input_size=64, mean=[0.5], std=[0.25], provenance={})


def test_moments_are_those_of_the_pictures_and_directions_are_orthonormal(
    pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    base = base_in(tmp_path, 8)
    write_tap_moments(tmp_path, base, pictures)
    state = safetensors.torch.load_file(str(tmp_path / MOMENTS_FILE))
    width = state["mean"].numel()
    directions = state["directions"].float()
    assert state["deviation"].shape == (width,) and bool((state["deviation"] > 0).all())
    assert directions.shape == (min(64, len(pictures)), width)
    some = directions[: len(pictures) // 2]
    assert torch.allclose(some @ some.T, torch.eye(len(some)), atol=5e-3)
    with safetensors.safe_open(str(tmp_path / MOMENTS_FILE), framework="pt") as file:
        assert file.metadata()["content_hash"] == base.content_hash
        assert file.metadata()["pictures"] == str(len(pictures))


def test_where_nothing_stands_still_nothing_is_written(
    pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    write_tap_moments(tmp_path, base_in(tmp_path, 0), pictures)
    assert not (tmp_path / MOMENTS_FILE).exists()
