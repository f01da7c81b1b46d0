"""Preflight checks of `fedclient doctor`: what may keep this device from taking part, each with its remedy.

Nothing here needs torch: the worker's interpreter is asked in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from fedclient.node.doctor import device, network, software
from fedclient.node.doctor.checks import Check, failure, guarded, ok, warning, worst
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedclient.plant_settings import SettingsFile
from fedspect.data.classes import ClassList
from fedspect.data.sources import find_pictures
from fedspect.errors import FedspectError, WorkspaceError
from fedspect.protocol.join_token import JoinToken

__all__ = ["Check", "before_joining", "examine", "worst"]

ROOT = Path("/")


def examine(
    home: PlantHome,
    *,
    data: Path | None = None,
    worker_python: str | None = None,
    token: JoinToken | None = None,
    root: Path = ROOT,
) -> Iterator[Check]:
    """Run all checks and yield each result; none raises.

    Args:
        home: the plant's own folder.
        data: pictures to look at in place of the plant's.
        worker_python: the interpreter to ask in place of the plant's.
        token: of a headquarters that this device has not joined yet.
        root: where the device's own files begin.

    """
    membership: Membership | None = None
    try:
        membership = home.membership()
    except WorkspaceError:
        pass
    except FedspectError as error:
        yield failure("membership", error)
    python = worker_python or (membership.worker_python if membership else None) or sys.executable
    yield from guarded("node", software.node)
    yield from guarded("worker", lambda: software.worker(python, jetson=device.is_jetson(root)))
    yield from before_joining(home, root=root)
    yield from guarded("settings", lambda: _settings(home))
    source = data or (Path(membership.data) if membership else None)
    if source is not None:
        yield from guarded("pictures", lambda: _pictures(source, membership))
    if token is not None:
        yield from network.invited(home, token)
    if membership is not None:
        joined = membership
        yield from guarded("federation", lambda: network.joined(home, joined))
    elif token is None:
        yield warning("federation", "this device has joined none", "fedclient join TOKEN --data FOLDER")


def before_joining(home: PlantHome, *, root: Path = ROOT) -> Iterator[Check]:
    """The quick checks that `fedclient join` makes by itself: the device."""
    yield from guarded("memory", device.memory)
    yield from guarded("disk", lambda: device.disk(home.folder))
    yield from guarded("device", lambda: device.jetson(root))
    yield from guarded("temperature", lambda: device.temperature(root))


def _settings(home: PlantHome) -> Iterator[Check]:
    settings = SettingsFile(home.folder).read().training
    limits = [f"hours {', '.join(settings.hours) or 'at any time'}"]
    for name, unit in (("memory_free", "MiB"), ("memory_limit", "MiB"), ("load_limit", "%")):
        value = getattr(settings, name)
        limits += [f"{name} {value} {unit}"] if value else []
    yield ok("settings", ", ".join(limits))


def _pictures(source: Path, membership: Membership | None) -> Iterator[Check]:
    classes = None if membership is None else ClassList(tuple(membership.classes), membership.aliases)
    listing = find_pictures(source, classes=classes)
    left_out = [problem for problem in listing.problems if problem.left_out]
    text = f"{listing.understood}, in {source}"
    present = {picture.label for picture in listing.pictures}
    if left_out:
        first = left_out[0]
        yield warning("pictures", text, f"the first: {first.name}: {first.kind}; `fedclient data` names all")
    elif len(present) < 2:
        yield warning(
            "pictures", f"{text}, all of one class", "training needs pictures of two classes or more"
        )
    else:
        yield ok("pictures", text)
    missing = [] if classes is None else [name for name in classes.names if name not in present]
    if missing:
        yield warning("classes", f"no pictures of {', '.join(missing)}", "the plant takes part without them")
