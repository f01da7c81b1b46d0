"""Network registry: CondenseNetV2 A, B, C, the peers that it is compared with, and those of other packages.

A package adds a network by an entry point of the group ``fedspect.networks``: a function of ``num_classes`` and, by
keyword, ``channels``, that answers a ``LevelledNetwork`` with fresh weights (``docs/extend/network.md``).
"""

from __future__ import annotations

from typing import List

from fedspect import plugins
from fedspect.errors import FedspectError, ModelError, did_you_mean
from fedspect.model.condensenetv2 import PLANS, CondenseNetV2
from fedspect.model.levels import LevelledNetwork, check_classes, seeded
from fedspect.model.peers import build_peer, peer_names

__all__ = ["FORMS", "LevelledNetwork", "architectures", "build_network"]

FORMS = ("learned", "condensed")
GROUP = "fedspect.networks"


def architectures() -> List[str]:
    """Every name that ``build_network`` knows: ours first, then the peers, then those of other packages."""
    own = [*PLANS, *peer_names()]
    return list(plugins.load(GROUP, dict.fromkeys(own, f"{__name__}:build_network")))


def build_network(
    architecture: str, num_classes: int, *, channels: int = 3, form: str = "learned", seed: int = 0
) -> LevelledNetwork:
    """A network with fresh weights that follow from ``seed`` alone; ``form`` is for CondenseNetV2 only.

    Raises:
        ModelError: an unknown architecture or form, or an impossible number of classes or channels.
        SettingsError: another package's network cannot be loaded.

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
        if architecture in peer_names():
            return build_peer(architecture, num_classes, channels=channels)
        check_architecture(architecture)
        return _plugin(architecture, num_classes, channels)


def check_architecture(architecture: str) -> None:
    """Raise ``ModelError`` unless ``build_network`` knows the name; nothing is built."""
    if architecture in PLANS or architecture in peer_names():
        return  # so that our own cost no look at the installed packages
    if architecture not in architectures():
        more = "".join(f", {name}" for name in plugins.load(GROUP))
        raise ModelError(
            "unknown architecture",
            seen=repr(architecture),
            accepted=f"{', '.join(PLANS)}, plain-cnn, a torchvision classifier such as mobilenet-v3-small{more}",
            remedy=did_you_mean(architecture, architectures())
            or "check the spelling (names use dashes), or install the package that adds it",
        )


def _plugin(architecture: str, num_classes: int, channels: int) -> LevelledNetwork:
    build = plugins.resolve(GROUP, architecture)
    try:
        network = build(num_classes, channels=channels)
    except FedspectError:
        raise
    except Exception as error:  # a foreign package may fail in any way
        raise ModelError(
            f"the network {architecture} cannot be built",
            seen=f"{type(error).__name__}: {error}"[:300],
            remedy="mend or uninstall the package that registers it",
        ) from error
    wanted = (architecture, num_classes, channels)
    seen = network if isinstance(network, LevelledNetwork) else None
    if seen is not None and (seen.architecture, seen.num_classes, seen.channels) == wanted:
        return seen
    raise ModelError(
        f"what {architecture} builds is not the network that was asked for",
        seen=type(network).__name__,
        accepted=f"a LevelledNetwork called {architecture!r}, {num_classes} classes, {channels} channel(s)",
        remedy="mend the package that registers it",
    )
