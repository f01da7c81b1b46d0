"""Condensing: a network with learned groups becomes the same function in plain grouped convolutions.

Weights that the masks hold at zero disappear, so the condensed network is about half as large, needs an
eighth of the 1x1 work and can be fine-tuned like any other (CondenseNet, section 3.3; CondenseNet V2,
section 3.2).
"""

from __future__ import annotations

from typing import Optional, cast

import torch
from torch import Tensor, nn

from fedspect.errors import ModelError
from fedspect.model.condensed_layers import CondensedLearnedGroupConv, CondensedSparseFeatureReactivation
from fedspect.model.condensenetv2 import CondenseNetV2
from fedspect.model.learned_groups import (
    LearnedGroupConv,
    LearnedGroups,
    SparseFeatureReactivation,
    is_finished,
    kept_channels,
)
from fedspect.model.levels import LevelledNetwork, freeze, seeded


def condense(network: LevelledNetwork) -> LevelledNetwork:
    """A new network of form "condensed" with the same logits; the learned one is left as it is.

    Raises:
        ModelError: not a network with learned groups, or its dropping is not finished.

    """
    if not isinstance(network, CondenseNetV2) or network.form != "learned":
        raise ModelError(
            "only a network with learned groups can be condensed",
            seen=f"{network.architecture}, form {network.form!r}",
            accepted="cdnv2-a, cdnv2-b or cdnv2-c of form 'learned'",
            remedy="use the network as it is",
        )
    if not is_finished(network):
        raise ModelError(
            "connections are still to be dropped, so the network cannot be condensed yet",
            remedy="train past half of the schedule, or call learned_groups.finish(network) and fine-tune",
        )
    with seeded("condense"):  # the numbers are overwritten; the caller's own must not move on
        condensed = CondenseNetV2(
            network.architecture, network.num_classes, channels=network.channels, form="condensed"
        )
    with torch.no_grad():
        _condense_children(network, condensed)
    condensed.default_freeze_levels = network.default_freeze_levels
    freeze(condensed, network.freeze_levels)
    return condensed.train(network.training)


def _condense_children(source: nn.Module, target: nn.Module) -> None:
    """Walk both trees at once; they differ only where a learned group layer meets its plain form."""
    if isinstance(source, LearnedGroups):
        if isinstance(source, LearnedGroupConv):
            condense_lgc(source, cast(CondensedLearnedGroupConv, target))
        else:
            condense_sfr(
                cast(SparseFeatureReactivation, source), cast(CondensedSparseFeatureReactivation, target)
            )
        return
    children = dict(target.named_children())
    if not children:
        target.load_state_dict(source.state_dict())
        return
    for name, child in source.named_children():
        _condense_children(child, children[name])


def condense_lgc(source: LearnedGroupConv, target: CondensedLearnedGroupConv) -> None:
    """Group g keeps the columns it looks at; a channel's norm goes along wherever it is gathered to."""
    chosen = kept_channels(source)
    index = chosen.flatten()
    target.index.copy_(index)
    copy_norm(source.norm, target.norm, index)
    members = source.conv.out_channels // source.groups
    columns = chosen.unsqueeze(1).expand(-1, members, -1)
    target.conv.weight.copy_(source.bundles().gather(2, columns).reshape(target.conv.weight.shape))


def condense_sfr(source: SparseFeatureReactivation, target: CondensedSparseFeatureReactivation) -> None:
    """Group g keeps the rows that it reaches; slot s knows by ``index`` which channel it is added to."""
    chosen = kept_channels(source)
    target.index.copy_(chosen.flatten())
    copy_norm(source.norm, target.norm)
    members = source.conv.in_channels // source.groups
    rows = chosen.unsqueeze(1).expand(-1, members, -1)
    weight = source.bundles().gather(2, rows).transpose(1, 2)
    target.conv.weight.copy_(weight.reshape(target.conv.weight.shape))


def copy_norm(source: nn.BatchNorm2d, target: nn.BatchNorm2d, index: Optional[Tensor] = None) -> None:
    """Copy a norm's parameters and statistics, channel ``index[i]`` to channel i."""
    own = target.state_dict()
    for key, value in source.state_dict().items():
        own[key].copy_(value if index is None or value.dim() == 0 else value[index])
