"""Plugin registry: what other packages add to Fedspect by an entry point.

One line in a package's ``pyproject.toml`` and one file are enough::

    [project.entry-points."fedspect.aggregators"]
    halving = "my_package.halving:Halving"

Fedspect's own parts are entry points too, listed by whoever has a group (``own``), so both are found, named in
errors and loaded in one way. ``load`` imports nothing: a name's module is imported when it is asked for, so that a
list of names costs no Flower and no torch.
"""

from __future__ import annotations

import difflib
from importlib import metadata
from types import MappingProxyType
from typing import Any, Dict, Mapping

from fedspect.errors import SettingsError

OWN_PACKAGE = "fedspect"
NOTHING: Mapping[str, str] = MappingProxyType({})


def load(group: str, own: Mapping[str, str] = NOTHING) -> Mapping[str, metadata.EntryPoint]:
    """The entry points of a group by name: Fedspect's own (``module:object`` by name), then those of other packages.

    Raises:
        SettingsError: two packages claim one name.

    """
    found = {name: metadata.EntryPoint(name, value, group) for name, value in own.items()}
    owners = dict.fromkeys(found, OWN_PACKAGE)
    for package, points in sorted(_installed(group).items()):
        for point in points:
            if point.name in found:
                raise SettingsError(
                    f"two packages register {point.name} as one of {group}",
                    seen=f"{owners[point.name]} and {package}",
                    remedy="uninstall one of them, or let its author rename what it adds",
                )
            found[point.name], owners[point.name] = point, package
    return found


def resolve(group: str, name: str, own: Mapping[str, str] = NOTHING) -> Any:
    """The object that an entry point names.

    Raises:
        SettingsError: there is none of that name, or its module cannot be imported.

    """
    points = load(group, own)
    if name not in points:
        near = difflib.get_close_matches(name, points, n=1)
        raise SettingsError(
            f"there is no such name among {group}",
            seen=name,
            accepted=", ".join(points),
            remedy=f"did you mean {near[0]}?" if near else None,
        )
    try:
        return points[name].load()
    except Exception as error:  # a foreign package may fail in any way
        raise SettingsError(
            f"{name}, one of {group}, cannot be loaded",
            seen=f"{points[name].value}: {type(error).__name__}: {error}",
            remedy="mend or uninstall the package that registers it",
        ) from error


def _installed(group: str) -> Dict[str, tuple[metadata.EntryPoint, ...]]:
    """Other packages' entry points of a group; a package that is found twice (an editable install) counts once."""
    found: Dict[str, tuple[metadata.EntryPoint, ...]] = {}
    for package in metadata.distributions():
        points = tuple(point for point in package.entry_points if point.group == group)
        if points:
            found.setdefault(package.metadata["Name"].lower(), points)
    return found
