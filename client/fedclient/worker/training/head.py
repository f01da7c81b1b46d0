"""Head as numpy arrays: the unfrozen stages (levels) of a network, float32, for the wire."""

from __future__ import annotations

from typing import Mapping

import numpy as np
import torch

from fedspect.model.levels import LevelledNetwork, head_state, load_head_state
from fedspect.protocol.versions import BatchNorm
from fedspect.update.schema import Arrays, is_statistic


def head_of(network: LevelledNetwork) -> Arrays:
    """Copy the unfrozen levels' parameters and running statistics."""
    state = head_state(network, network.freeze_levels)
    return {name: np.array(value.cpu().numpy(), dtype=np.float32) for name, value in state.items()}


def load_head(network: LevelledNetwork, head: Mapping[str, np.ndarray]) -> None:
    """Copy arrays into the network; those that are absent stay as they are.

    Raises:
        CheckpointError: a name or shape is not the network's; nothing was changed then.

    """
    load_head_state(network, {name: torch.from_numpy(np.array(values)) for name, values in head.items()})


def shared_part(head: Mapping[str, np.ndarray], batch_norm: BatchNorm) -> Arrays:
    """The part of a head that travels: all of it, or (FedBN) all but the running statistics."""
    return {
        name: values for name, values in head.items() if batch_norm == "average" or not is_statistic(name)
    }


def statistics_part(head: Mapping[str, np.ndarray]) -> Arrays:
    """The running statistics."""
    return {name: values for name, values in head.items() if is_statistic(name)}
