"""Review queue: pictures of which the line was not sure, kept in ``line/review`` until a person labels them, within
bounds.

Each is two files: the picture as it came (pixels without a file become PNG) and, written after it, ``.json`` with
what the model thought; where it is wanted a third, ``why/*.png``, with where that comes from. When the folder is
full the oldest pictures go: what the line sees today teaches more.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional, Tuple, Union

import numpy as np
from PIL import Image

from fedclient.worker.line.settings import ReviewSettings
from fedspect.data.decode import SUFFIXES
from fedspect.errors import DamagedFileError, NoPicturesError, SettingsError, storage_error
from fedspect.files import read_json, sync_folder, write_bytes, write_json

KINDS = ((b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"BM", ".bmp"), (b"II*\0", ".tif"), (b"MM\0*", ".tif"))


@dataclass(frozen=True)
class ReviewItem:
    """A kept picture and what is written beside it: class, confidence, probabilities, version, time."""

    name: str
    path: Path
    bytes: int
    facts: Mapping[str, Any]
    heat_map: Optional[Path] = None


class ReviewQueue:
    """The folder. One process writes; others may list and label."""

    def __init__(self, folder: Path, settings: ReviewSettings) -> None:
        self.folder = folder
        self.settings = settings

    def keep(
        self,
        source: Union[bytes, np.ndarray],
        facts: Mapping[str, Any],
        draw: Callable[[Path], None] = lambda path: None,
    ) -> None:
        """Keep one picture: an encoded file, or uint8 pixels (C, H, W) or (H, W, C); ``draw`` writes its heat map.

        Raises:
            StorageError: it cannot be written.

        """
        if self.settings.most_pictures == 0:
            return
        content = source if isinstance(source, bytes) else _png(source)
        suffix = next((suffix for sign, suffix in KINDS if content.startswith(sign)), ".png")
        moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        stem = f"{moment}-{hashlib.sha256(content).hexdigest()[:12]}"
        path = self.folder / f"{stem}{suffix}"
        write_bytes(path, content)
        write_json(path.with_suffix(".json"), {**facts, "at": time.time()})
        if self.settings.heat_maps:
            draw(_heat_map(path))
        self._shrink()

    def list(self) -> List[ReviewItem]:
        """All of them, the oldest first."""
        found = []
        for path in self._pictures():
            facts: Any = {}
            with contextlib.suppress(OSError, DamagedFileError):
                facts = read_json(path.with_suffix(".json"))
            with contextlib.suppress(OSError):
                size = path.stat().st_size
                heat = _heat_map(path)
                facts = facts if isinstance(facts, dict) else {}
                found.append(ReviewItem(path.stem, path, size, facts, heat if heat.exists() else None))
        return found

    def label(self, name: str, label: str, target: Path) -> Path:
        """Move a picture to ``target/<label>/``, where training finds it; its new path.

        Raises:
            NoPicturesError: there is none of that name.
            StorageError: it cannot be moved.

        """
        if not label or Path(label).name != label or label.startswith("."):
            raise SettingsError("not the name of a class", seen=label)
        picture = self._named(name)
        place = target / label / f"review-{picture.path.name}"
        try:
            write_bytes(place, picture.path.read_bytes())
        except OSError as error:
            raise storage_error(error, place, "moving a picture to its class") from error
        self._remove(picture.path)
        return place

    def discard(self, name: str) -> Path:
        """Remove a picture that nobody needs to label; where it was.

        Raises:
            NoPicturesError: there is none of that name.
            StorageError: it cannot be removed.

        """
        picture = self._named(name)
        self._remove(picture.path)
        return picture.path

    def _named(self, name: str) -> ReviewItem:
        picture = next((each for each in self.list() if each.name == name), None)
        if picture is None:
            raise NoPicturesError(
                "no such picture is waiting for a label",
                seen=name,
                remedy="`fedclient review list` shows them",
            )
        return picture

    def _remove(self, path: Path) -> None:
        try:
            for each in _files_of(path):
                each.unlink(missing_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            raise storage_error(error, path, "removing a picture") from error

    def _pictures(self) -> List[Path]:
        with contextlib.suppress(OSError):
            return sorted(
                path
                for path in self.folder.iterdir()
                if not path.name.startswith(".") and path.suffix.lower() in SUFFIXES
            )
        return []

    def _shrink(self) -> None:
        sizes = []
        for path in self._pictures():
            with contextlib.suppress(OSError):
                sizes.append((path, sum(each.stat().st_size for each in _files_of(path) if each.exists())))
        total, count = sum(size for _, size in sizes), len(sizes)
        for path, size in sizes:
            if count <= self.settings.most_pictures and total <= self.settings.most_mib << 20:
                return
            for each in _files_of(path):
                with contextlib.suppress(OSError):
                    each.unlink()
            total, count = total - size, count - 1


def _files_of(picture: Path) -> Tuple[Path, ...]:
    """The picture and what belongs to it."""
    return picture, picture.with_suffix(".json"), _heat_map(picture)


def _heat_map(picture: Path) -> Path:
    return picture.parent / "why" / f"{picture.stem}.png"


def _png(pixels: np.ndarray) -> bytes:
    if pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    flat = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(flat)).save(buffer, format="PNG")
    return buffer.getvalue()
