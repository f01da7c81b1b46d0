"""Base models of a workspace: their folders, and the one that the settings name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tomlkit

from fedserver.workspace import Workspace
from fedspect import files
from fedspect.errors import FederationError, WorkspaceError
from fedspect.protocol.names import checked_name


def new_place(workspace: Workspace, name: str) -> Path:
    """The folder for a new base model.

    Raises:
        SettingsError: that cannot be a name.
        WorkspaceError: there is one of that name; nothing is ever overwritten.

    """
    place = workspace.bases / checked_name(name, "base model")
    if place.exists():
        raise WorkspaceError(
            "there is a base model of that name", seen=place, remedy="give another one with --name"
        )
    return place


def name_from(path: Path) -> str:
    """A name for what comes from a file or a folder: ``cdnv2_a.pth.tar`` is ``cdnv2_a``."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", re.sub(r"\.(pth|tar|pt)(?=\.|$)", "", path.name.lower()))
    return plain.strip("._-")[:60] or "imported"


@contextmanager
def making(place: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``place`` when the block ends well; else nothing of it is left."""
    hidden = place.parent / f"{files.MAKING_PREFIX}{place.name}"
    files.remove_folder(hidden)
    try:
        yield hidden
        hidden.rename(place)
        files.sync_folder(place.parent)
    finally:
        files.remove_folder(hidden)


def use(workspace: Workspace, place: Path) -> None:
    """Set the base model in ``fedserver.toml``; comments and everything else stay as they are."""
    document = tomlkit.parse(workspace.settings_path.read_text(encoding="utf-8"))
    section = document.setdefault("model", tomlkit.table())
    section["base"] = place.relative_to(workspace.folder).as_posix()
    files.write_text(workspace.settings_path, tomlkit.dumps(document))


def torch_needed(error: ImportError, what: str) -> FederationError:
    """The error for work that needs torch where it is not installed."""
    return FederationError(
        f"{what} needs torch at headquarters",
        seen=str(error),
        remedy="install the extra `worker` of fedspect here, or make the base model elsewhere",
    )
