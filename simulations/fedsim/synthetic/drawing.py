"""Pictures of defects on surfaces, and folders of them.

A picture is a surface (``surfaces``), a defect (``defects``) that is brighter or darker than it with equal
chance, and a camera with its own exposure and grain. Each picture has its own random stream, derived from
(seed, class, number): the tenth picture of a class is the same whether ten are drawn or a thousand.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Callable, Optional

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedsim.synthetic.defects import DEFECTS
from fedsim.synthetic.noise import smooth_noise
from fedsim.synthetic.surfaces import draw_surface
from fedspect.errors import SettingsError, storage_error
from fedspect.files import read_json, write_json
from fedspect.seeds import seed_digest

CLASSES: tuple[str, ...] = tuple(DEFECTS)
SMALLEST, LARGEST = 32, 2048
MOST_PER_CLASS = 1_000_000

_NOTE = ".synthetic.json"  # what a folder was drawn with; hidden, so that no listing takes it for a picture
_LOOK = 1  # raised whenever the same seed would draw another picture


def draw_picture(kind: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one grey picture of shape (size, size) with a defect of class ``kind``.

    Raises:
        SettingsError: the class is not one of ``CLASSES`` or the size is not between 32 and 2048 pixels.

    """
    _check(kind=kind, size=size)
    surface = draw_surface(size, rng)
    layer = DEFECTS[kind](size, surface.angle, rng)
    contrast = rng.uniform(0.12, 0.34) * rng.choice([-1.0, 1.0])
    brightness = rng.uniform(0.3, 0.7)
    scene = (brightness + surface.texture + contrast * layer) * surface.light
    return _photograph(scene.astype(np.float32), rng)


def draw_dataset(
    folder: Path,
    *,
    per_class: int,
    size: int,
    seed: int,
    progress: Optional[Callable[[int, int], None]] = None,
) -> None:
    """Draw ``per_class`` PNG pictures of each class into ``folder/<class>/<class>_<number>.png``.

    A folder that was begun with the same settings is completed; pictures that are there are not drawn again.
    ``progress`` is called with the number of pictures done and the number of all.

    Raises:
        SettingsError: a number is out of range, or the folder holds something else already.
        StorageError: the folder cannot be written (also ``DiskFullError``, ``ReadOnlyError``).

    """
    _check(size=size, per_class=per_class)
    _claim(folder, {"look": _LOOK, "per_class": per_class, "seed": seed, "size": size})
    total = per_class * len(CLASSES)
    for done in range(total):
        kind, number = CLASSES[done % len(CLASSES)], done // len(CLASSES)
        path = folder / kind / f"{kind}_{number + 1:04d}.png"
        if not path.exists():
            _write_png(path, draw_picture(kind, size, picture_rng(seed, kind, number)))
        if progress is not None:
            progress(done + 1, total)


def picture_rng(seed: int, kind: str, number: int) -> np.random.Generator:
    """The random stream of one picture."""
    digest = seed_digest("synthetic surface", seed, kind, number)
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def _photograph(scene: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a camera makes of a scene (0 black, 1 white): exposure, gamma, grain, eight bits."""
    size = scene.shape[0]
    exposed = np.clip(scene * rng.uniform(0.75, 1.25), 0.0, 1.2) ** rng.uniform(0.8, 1.3)
    exposed += rng.uniform(0.005, 0.035) * rng.standard_normal((size, size), dtype=np.float32)
    exposed += rng.uniform(0.0, 0.02) * smooth_noise(size, rng, length=1.5)
    return np.asarray(np.clip(np.rint(exposed * 255), 0, 255), dtype=np.uint8)


def _check(*, size: int, kind: Optional[str] = None, per_class: int = 1) -> None:
    if kind is not None and kind not in DEFECTS:
        raise SettingsError("no such kind of defect", seen=kind, accepted=", ".join(CLASSES))
    if not SMALLEST <= size <= LARGEST:
        raise SettingsError(
            "the size of synthetic pictures is out of range",
            seen=size,
            accepted=f"{SMALLEST} to {LARGEST} pixels",
        )
    if not 1 <= per_class <= MOST_PER_CLASS:
        raise SettingsError(
            "the number of pictures per class is out of range",
            seen=per_class,
            accepted=f"1 to {MOST_PER_CLASS}",
        )


def _claim(folder: Path, settings: dict[str, int]) -> None:
    """Make the folder, or see that it was begun with these settings."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise storage_error(error, folder, "making a folder for synthetic pictures") from error
    note = folder / _NOTE
    if occupied and not (note.exists() and read_json(note) == settings):
        raise SettingsError(
            "the folder holds other files, or synthetic pictures with other settings",
            seen=folder,
            accepted="an empty or new folder, or one begun with the same number, size and seed",
            remedy="choose another folder or remove this one",
        )
    write_json(note, settings)


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
