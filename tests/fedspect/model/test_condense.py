"""Condensing changes the form, never the answer; and the plain form's quick ways agree with the slow ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedspect.errors import ModelError
from fedspect.model import LevelledNetwork, build_network, condense, freeze, set_progress
from fedspect.model import condensed_layers as grouped
from fedspect.model.condensed_layers import CondensedLearnedGroupConv, CondensedSparseFeatureReactivation
from fedspect.model.group_conv import GroupConv2d
from fedspect.model.learned_groups import learned_groups


def lived_in(architecture: str, *, channels: int = 3, classes: int = 10) -> LevelledNetwork:
    """A learned network whose dropping is done and whose norms are as after training."""
    network = build_network(architecture, classes, channels=channels, seed=1)
    numbers = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=numbers)
                module.bias.uniform_(-0.2, 0.2, generator=numbers)
                module.running_mean.normal_(0, 0.1, generator=numbers)
                module.running_var.uniform_(0.5, 2, generator=numbers)
    set_progress(network, 1.0)
    return network


def pictures(channels: int = 3, size: int = 96, count: int = 2) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("architecture", ["cdnv2-a", "cdnv2-b", "cdnv2-c"])
def test_no_logit_moves(architecture):
    network = lived_in(architecture).eval()
    with torch.no_grad():
        before, after = network(pictures()), condense(network)(pictures())
    assert (after - before).abs().max() < 1e-5 * before.abs().max()


def test_no_logit_moves_in_training_mode_either():
    network = lived_in("cdnv2-a", channels=1).train()
    before, after = network(pictures(1, 128, 4)), condense(network)(pictures(1, 128, 4))
    assert (after - before).abs().max() < 1e-3 * before.abs().max()


def test_zero_weights_are_gone():
    network = lived_in("cdnv2-a", classes=1000)
    condensed = condense(network)
    assert sum(value.numel() for value in condensed.parameters()) == 2_038_444
    assert condensed.form == "condensed"
    assert not any(key.endswith("kept") for key in condensed.state_dict())


def test_the_learned_network_stays_as_it_is_and_shares_nothing():
    network = lived_in("cdnv2-a")
    freeze(network, 8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    condensed = condense(network)
    assert condensed.freeze_levels == 8
    assert not condensed.initial.weight.requires_grad
    with torch.no_grad():
        for value in condensed.state_dict().values():
            value.zero_()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("architecture", ["plain-cnn", "cdnv2-a"])
def test_only_learned_groups_can_be_condensed(architecture):
    with pytest.raises(ModelError, match="learned groups"):
        condense(build_network(architecture, 3, form="condensed"))


def test_a_network_that_still_drops_cannot_be_condensed():
    network = build_network("cdnv2-a", 3)
    set_progress(network, 0.3)
    with pytest.raises(ModelError, match="still to be dropped"):
        condense(network)


def test_a_network_of_which_one_group_still_drops_cannot_be_condensed():
    network = lived_in("cdnv2-a")
    *_, layer = learned_groups(network)
    layer.kept[1] = True
    with pytest.raises(ModelError):
        condense(network)


def test_a_condensed_network_learns():
    network = condense(lived_in("cdnv2-a", classes=2)).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    labels = torch.tensor([0, 1, 0, 1])
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(network(pictures(size=64, count=4)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(value.grad is not None for value in network.parameters())


def test_a_gathered_convolution_follows_its_index_and_takes_groups_in_turn():
    layer = CondensedLearnedGroupConv(4, 4, 2, nn.Identity()).eval()
    layer.index.copy_(torch.tensor([1, 3, 0, 1]))
    layer.conv.weight.data.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])[:, :, None, None])
    answer = layer(torch.tensor([10.0, 20, 30, 40]).view(1, 4, 1, 1)) * (1 + layer.norm.eps) ** 0.5
    assert answer.flatten().tolist() == pytest.approx([20, 10, 40, 20])


def test_a_scattered_reactivation_adds_each_slot_to_its_channel():
    layer = CondensedSparseFeatureReactivation(4, 4, 2, nn.Identity()).eval()
    layer.index.copy_(torch.tensor([0, 2, 2, 3]))
    # Group 0 is inputs 0 and 2, group 1 inputs 1 and 3.
    layer.conv.weight.data.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])[:, :, None, None])
    new = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1) * (1 + layer.norm.eps) ** 0.5
    assert layer(torch.full((1, 4, 1, 1), 10.0), new).flatten().tolist() == pytest.approx([11, 10, 15, 14])


@pytest.mark.parametrize("kind", [CondensedLearnedGroupConv, CondensedSparseFeatureReactivation])
def test_dense_and_grouped_products_agree_forwards_and_backwards(kind, monkeypatch):
    torch.manual_seed(0)
    layer = kind(24, 48, 6, nn.Hardswish()).double()
    wide = torch.randn(2, 48, 5, 7, dtype=torch.double)
    inputs = [torch.randn(2, 24, 5, 7, dtype=torch.double)]
    if kind is CondensedSparseFeatureReactivation:
        inputs.insert(0, wide)
    found = []
    for limit in (0, 1 << 20):
        monkeypatch.setattr(grouped, "DENSE_UP_TO", limit)
        layer.zero_grad()
        own = [value.clone().requires_grad_() for value in inputs]
        answer = layer(*own)
        answer.pow(2).sum().backward()
        found.append([answer, *(value.grad for value in own), layer.conv.weight.grad, layer.norm.weight.grad])
    for grouped_value, dense_value in zip(*found):
        assert torch.allclose(grouped_value, dense_value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_quick_gradient_of_a_group_convolution_is_torchs(kernel, memory):
    torch.manual_seed(0)
    quick = GroupConv2d(24, 16, kernel, 4).double()
    slow = nn.Conv2d(24, 16, kernel, padding=kernel // 2, groups=4, bias=False).double()
    slow.load_state_dict(quick.state_dict())
    gradients = []
    for layer in (quick, slow):
        features = torch.randn(3, 24, 6, 5, dtype=torch.double, generator=torch.Generator().manual_seed(1))
        features = features.contiguous(memory_format=memory).requires_grad_()
        layer(features).sin().sum().backward()
        gradients.append((features.grad, layer.weight.grad))
    for ours, truth in zip(*gradients):
        assert torch.allclose(ours, truth, rtol=1e-9, atol=1e-9)


def test_gradients_stop_where_they_are_not_wanted():
    layer = GroupConv2d(8, 8, 3, 2)
    layer.weight.requires_grad_(False)
    features = torch.randn(1, 8, 4, 4, requires_grad=True)
    layer(features).sum().backward()
    assert layer.weight.grad is None
    assert features.grad is not None
