"""Networks by name: CondenseNetV2 A, B, C, and the peers that it is compared with."""

from __future__ import annotations

import difflib
from typing import List

from fedspect.errors import ModelError
from fedspect.model.condensenetv2 import PLANS, CondenseNetV2
from fedspect.model.levels import LevelledNetwork, check_classes, seeded
from fedspect.model.peers import PLAIN_CNN, build_peer, peer_names

__all__ = ["FORMS", "LevelledNetwork", "architectures", "build_network"]

FORMS = ("learned", "condensed")


def architectures() -> List[str]:
    """Every name that ``build_network`` knows: ours first, then the peers."""
    return [*PLANS, *peer_names()]


def build_network(
    architecture: str, num_classes: int, *, channels: int = 3, form: str = "learned", seed: int = 0
) -> LevelledNetwork:
    """A network with fresh weights that follow from ``seed`` alone; ``form`` is for CondenseNetV2 only.

    Raises:
        ModelError: an unknown architecture or form, or an impossible number of classes or channels.

    """
    check_classes(num_classes)
    if channels not in (1, 3):
        raise ModelError(
            "a network takes grey or colour pictures", seen=f"{channels} channels", accepted="1 or 3"
        )
    if form not in FORMS:
        raise ModelError("unknown form of a network", seen=repr(form), accepted="learned or condensed")
    with seeded("network", architecture, seed):
        if architecture in PLANS:
            return CondenseNetV2(architecture, num_classes, channels=channels, form=form)
        if architecture == PLAIN_CNN or architecture in peer_names():
            return build_peer(architecture, num_classes, channels=channels)
    raise unknown_architecture(architecture)


def check_architecture(architecture: str) -> None:
    """Raise ``ModelError`` unless ``build_network`` knows the name; nothing is built."""
    if architecture not in architectures():
        raise unknown_architecture(architecture)


def unknown_architecture(architecture: str) -> ModelError:
    """The error for a name that no network has, with the names that look like it."""
    nearest = difflib.get_close_matches(architecture, architectures(), n=3)
    return ModelError(
        "unknown architecture",
        seen=repr(architecture),
        accepted=f"{', '.join(PLANS)}, plain-cnn, or a torchvision classifier such as mobilenet-v3-small",
        remedy=f"did you mean {' or '.join(nearest)}?" if nearest else "check the spelling; names use dashes",
    )
