"""Where the model looked, as the report shows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fedsim.heat_maps import class_activation, write_heat_map
from fedspect.data.preprocess import Preprocessing
from fedspect.model import build_network

GREY = Preprocessing(64, 1, (0.5,), (0.25,))


@pytest.mark.parametrize("architecture", ["plain-cnn", "cdnv2-a", "mobilenet-v3-small", "resnet18"])
def test_every_architecture_has_a_map_of_the_picture_s_size(architecture):
    network = build_network(architecture, 3, channels=1, form="condensed", seed=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, 64, 64)).astype(np.float32))
    heat = class_activation(network, images, torch.tensor([0, 2]))
    assert heat.shape == (2, 64, 64) and heat.min() >= 0 and heat.max() <= 1
    assert network.training and all(
        torch.equal(before[name], value) for name, value in network.state_dict().items()
    )
    assert not any(module._forward_hooks for module in network.modules())


def test_heat_follows_what_the_class_is_told_by():
    """Weights by hand: the class is told by bright pixels."""
    network = build_network("plain-cnn", 2, channels=1, seed=0).eval()
    left = torch.zeros(1, 1, 64, 64)
    left[..., :16] = 3.0
    right = left.flip(-1)
    columns = np.arange(64)
    for label in (0, 1):
        heats = [class_activation(network, images, torch.tensor([label]))[0] for images in (left, right)]
        if all(heat.sum() > 0 for heat in heats):
            first, second = ((heat.sum(0) * columns).sum() / heat.sum() for heat in heats)
            assert abs(first - second) > 5
            return
    pytest.fail("no class has any heat")


def test_a_written_map_shows_nothing_of_the_picture(tmp_path):
    network = build_network("plain-cnn", 2, channels=1, seed=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()  # no heat anywhere
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(picture)
    place = write_heat_map(tmp_path, "a.png", picture, 0, network, GREY)
    assert len(np.unique(np.asarray(Image.open(tmp_path / place)))) == 1
    assert write_heat_map(tmp_path, "b.png", tmp_path / "b.png", 0, network, GREY) is None
