"""The networks: CondenseNetV2 with its learned groups, condensing, levels, base models, and peers."""

from fedspect.model.base import BaseCard, BaseNetwork, default_base, load_base, save_base
from fedspect.model.condense import condense
from fedspect.model.learned_groups import group_lasso, set_progress
from fedspect.model.levels import (
    LevelledNetwork,
    batch_norm_statistics,
    cut_level,
    freeze,
    frozen_part,
    head_part,
    head_state,
    load_head_state,
)
from fedspect.model.network import architectures, build_network

__all__ = [
    "BaseCard",
    "BaseNetwork",
    "LevelledNetwork",
    "architectures",
    "batch_norm_statistics",
    "build_network",
    "condense",
    "cut_level",
    "default_base",
    "freeze",
    "frozen_part",
    "group_lasso",
    "head_part",
    "head_state",
    "load_base",
    "load_head_state",
    "save_base",
    "set_progress",
]
