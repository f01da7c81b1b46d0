"""Folders of drawn pictures: claimed by a note of what they are drawn with, completed when they were begun."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedspect.errors import SettingsError, storage_error
from fedspect.files import read_json, write_json

Progress = Callable[[int, int], None]
"""Called with the number of pictures done and the number of all."""

_NOTE = ".synthetic.json"  # what a folder was drawn with; hidden, so that no listing takes it for a picture


def fill_folder(
    folder: Path,
    classes: Sequence[str],
    note: Mapping[str, Any],
    *,
    per_class: int,
    draw: Callable[[str, int], NDArray[np.uint8]],
    progress: Optional[Progress] = None,
) -> None:
    """Draw the pictures that are not there yet into ``folder/<class>/<class>_<number>.png``.

    Raises:
        SettingsError: the folder holds something else already.
        StorageError: it cannot be written.

    """
    _claim(folder, note)
    total = per_class * len(classes)
    for done in range(total):
        kind, number = classes[done % len(classes)], done // len(classes)
        path = folder / kind / f"{kind}_{number + 1:04d}.png"
        if not path.exists():
            _write_png(path, draw(kind, number))
        if progress is not None:
            progress(done + 1, total)


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder, or see that it was begun with these settings."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise storage_error(error, folder, "making a folder for synthetic pictures") from error
    note = folder / _NOTE
    if occupied and not (note.exists() and read_json(note) == dict(settings)):
        raise SettingsError(
            "the folder holds other files, or synthetic pictures with other settings",
            seen=folder,
            accepted="an empty or new folder, or one begun with the same number, size and seed",
            remedy="choose another folder or remove this one",
        )
    write_json(note, dict(settings))


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write under another name and rename; not flushed one by one, since any picture can be drawn again."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="PNG", compress_level=1)
    temporary = path.with_name(f".writing-{path.name}")
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.write_bytes(encoded.getvalue())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path, "writing a synthetic picture") from error
