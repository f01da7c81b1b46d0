"""Version registry of a workspace: published versions, retired ones, and where each came from.

::

    models/0003-1f0c2a9b4d5e/
        head.safetensors      the unfrozen levels, float32
        card.json             fedspect.protocol.versions.VersionCard
        retired.json          only where an operator retired the version: when and why

A version's folder appears by one rename and is never written again; retiring one is a file beside it. What
plants are to run is the version with the highest number that is not retired, so retiring the newest one
brings every plant back to the one before.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fedserver.registry.served_files import ServedFiles
from fedspect import files
from fedspect.errors import DamagedFileError, WorkspaceError, storage_error
from fedspect.locking import exclusive
from fedspect.protocol.versions import CARD_FILE, HEAD_FILE, VERSION_FILES, VersionCard
from fedspect.update.schema import Arrays, version_of

RETIRED_FILE = "retired.json"
NAME = re.compile(r"([0-9]{4,})-([0-9a-f]{12})")
SHORT = 12  # digits of a hash that people read


@dataclass(frozen=True)
class PublishedVersion:
    """One published version; ``retired`` says when (``at``) and why (``reason``) it was withdrawn."""

    folder: Path
    card: VersionCard
    retired: dict[str, Any] | None

    @property
    def name(self) -> str:
        """Name for people: the number and the beginning of the hash."""
        return f"{self.card.number} ({self.card.content_hash[:SHORT]})"

    def head(self) -> Arrays:
        """The unfrozen stages (levels), checked against the version's hash.

        Raises:
            DamagedFileError: they are not what was published.

        """
        path = self.folder / HEAD_FILE
        try:
            head = load_tensors(path.read_bytes())
            seen = version_of(head)
        except (SafetensorError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        except OSError as error:
            raise storage_error(error, path, "reading a version") from error
        if seen != self.card.content_hash:
            raise _damaged(path, f"its hash is {seen[:SHORT]}")
        return dict(head)


class VersionRegistry:
    """The registry's folder in a workspace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._served: dict[str, ServedFiles] = {}

    # -- reading -------------------------------------------------------------------------------------------

    def versions(self) -> list[PublishedVersion]:
        """All versions by number, retired ones included.

        Raises:
            DamagedFileError: a card cannot be read.

        """
        return [_read(folder) for folder in self._folders()]

    def published(self) -> PublishedVersion | None:
        """The version that plants are to run: the newest that is not retired."""
        versions = (_read(folder) for folder in reversed(self._folders()))
        return next((each for each in versions if each.retired is None), None)

    def named(self, name: str) -> PublishedVersion:
        """The version with that number or beginning of a hash; "published" is the one that plants are to run.

        Raises:
            WorkspaceError: there is none.

        """
        versions = self.versions()
        if name == "published":
            found = [each for each in versions if each.retired is None][-1:]
        elif name.isascii() and name.isdigit() and len(name) < SHORT:
            found = [each for each in versions if each.card.number == int(name)]
        else:
            found = [each for each in versions if len(name) >= 4 and each.card.content_hash.startswith(name)]
        if len(found) != 1:
            raise WorkspaceError(
                "there is no such version" if not found else "that begins the hash of several versions",
                seen=name,
                accepted=", ".join(each.name for each in versions) or None,
                remedy="see `fedserver models list`"
                if versions
                else "publish one with `fedserver models publish`",
            )
        return found[0]

    def by_hash(self, content_hash: str) -> PublishedVersion | None:
        """The version with this content, if it was ever published."""
        return next((each for each in self.versions() if each.card.content_hash == content_hash), None)

    def served(self, version: PublishedVersion) -> ServedFiles:
        """The version's files as served; hashed once, for they never change."""
        known = self._served.get(version.card.content_hash)
        if known is None:
            known = ServedFiles.read(version.folder, VERSION_FILES)
            self._served[version.card.content_hash] = known
        return known

    # -- changing ------------------------------------------------------------------------------------------

    def add(self, head: Mapping[str, np.ndarray], **facts: Any) -> tuple[PublishedVersion, bool]:
        """Publish a head; the same content again is the version that it already was.

        Args:
            head: float32 arrays by full key of the network's ``state_dict``.
            **facts: what the card says beside number, hash, parent and time.

        Returns:
            the version, and whether it is a new one.

        Raises:
            DiskFullError, ReadOnlyError, StorageError: nothing has changed then.

        """
        content_hash = version_of(head)
        with exclusive(self.folder / ".lock"):
            for leftover in self.folder.glob(f"{files.MAKING_PREFIX}*"):
                files.remove_folder(leftover)
            versions = self.versions()
            known = next((each for each in versions if each.card.content_hash == content_hash), None)
            if known is not None:
                return known, False
            number = versions[-1].card.number + 1 if versions else 1
            before = [each.card for each in versions if each.retired is None]
            parents = [card.content_hash for card in before if card.base_hash == facts["base_hash"]]
            card = VersionCard(
                number=number,
                content_hash=content_hash,
                parent=parents[-1] if parents else None,
                created=_now(),
                **facts,
            )
            tensors = {name: np.ascontiguousarray(values, dtype="<f4") for name, values in head.items()}
            place = self.folder / f"{number:04d}-{content_hash[:SHORT]}"
            files.write_folder(
                place,
                {
                    HEAD_FILE: save_tensors(tensors, {"content_hash": content_hash}),
                    CARD_FILE: (card.model_dump_json(indent=2) + "\n").encode("utf-8"),
                },
            )
        return PublishedVersion(place, card, None), True

    def retire(self, version: PublishedVersion, reason: str) -> PublishedVersion:
        """Withdraw a version: plants are to run the one before it that is not retired."""
        files.write_json(version.folder / RETIRED_FILE, {"at": _now(), "reason": reason})
        return _read(version.folder)

    def reinstate(self, version: PublishedVersion) -> PublishedVersion:
        """Undo a withdrawal."""
        (version.folder / RETIRED_FILE).unlink(missing_ok=True)
        return _read(version.folder)

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        found = [each for each in self.folder.iterdir() if NAME.fullmatch(each.name)]
        return sorted(found, key=lambda each: int(each.name.partition("-")[0]))


def _read(folder: Path) -> PublishedVersion:
    try:
        card = VersionCard.model_validate(files.read_json(folder / CARD_FILE))
    except (FileNotFoundError, ValidationError) as error:
        raise _damaged(folder / CARD_FILE, str(error).splitlines()[0]) from error
    try:
        retired = files.read_json(folder / RETIRED_FILE)
    except FileNotFoundError:
        retired = None
    return PublishedVersion(folder, card, retired)


def _damaged(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError(
        "a published version is not what was written",
        seen=f"{path}: {why}",
        remedy="restore the workspace's models folder from a backup",
    )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
