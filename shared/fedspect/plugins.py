"""Plugin registry: what other packages add to Fedspect by an entry point.

One line in a package's ``pyproject.toml`` and one file are enough::

    [project.entry-points."fedspect.aggregators"]
    halving = "my_package.halving:Halving"

Fedspect's own parts are entry points too, listed by whoever has a group (``own``), so both are found, named in
errors and loaded in one way. ``load`` imports nothing: a name's module is imported when it is asked for, so that a
list of names costs no Flower and no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any, Dict, List, Mapping, Tuple

from pydantic_core import core_schema

from fedspect.errors import SettingsError, did_you_mean

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
        raise SettingsError(
            f"there is no such name among {group}",
            seen=name,
            accepted=", ".join(points),
            remedy=did_you_mean(name, points),
        )
    try:
        return points[name].load()
    except Exception as error:  # a foreign package may fail in any way
        raise SettingsError(
            f"{name}, one of {group}, cannot be loaded",
            seen=f"{points[name].value}: {type(error).__name__}: {error}",
            remedy="mend or uninstall the package that registers it",
        ) from error


@dataclass(frozen=True)
class NameIn:
    """Metadata of a pydantic field (``Annotated[str, NameIn(...)]``): the text is a name of a group.

    Fedspect's own names cost no look at the installed packages.
    """

    group: str
    own: Tuple[str, ...]

    def names(self) -> List[str]:
        """All names, Fedspect's own first."""
        return [*self.own, *load(self.group)]

    def check(self, name: str) -> str:
        """The name as it is; raises ``ValueError`` for one that nobody registers."""
        if name in self.own or name in (names := self.names()):
            return name
        near = did_you_mean(name, names)
        raise ValueError(f"{name!r} is none of {', '.join(names)}" + (f"; {near}" if near else ""))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Checked after the text itself."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))


def _installed(group: str) -> Dict[str, tuple[metadata.EntryPoint, ...]]:
    """Other packages' entry points of a group; a package that is found twice (an editable install) counts once."""
    found: Dict[str, tuple[metadata.EntryPoint, ...]] = {}
    for package in metadata.distributions():
        points = tuple(point for point in package.entry_points if point.group == group)
        if points:
            found.setdefault(package.metadata["Name"].lower(), points)
    return found
