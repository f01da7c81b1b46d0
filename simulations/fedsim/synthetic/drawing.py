"""Pictures of defects on surfaces, and folders of them.

A picture is a surface (``surfaces``), a defect (``defects``) that is brighter or darker than it with equal
chance, and a camera with its own exposure and grain. Each picture has its own random stream, derived from
(seed, class, number): the tenth picture of a class is the same whether ten are drawn or a thousand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from fedsim.synthetic.defects import DEFECTS
from fedsim.synthetic.folders import Progress, fill_folder
from fedsim.synthetic.noise import smooth_noise
from fedsim.synthetic.surfaces import draw_surface
from fedspect.errors import SettingsError
from fedspect.seeds import seed_digest

CLASSES: tuple[str, ...] = tuple(DEFECTS)
SMALLEST, LARGEST = 32, 2048
MOST_PER_CLASS = 1_000_000

_LOOK = 1  # raised whenever the same seed would draw another picture


def draw_picture(kind: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one grey picture of shape (size, size) with a defect of class ``kind``.

    Raises:
        SettingsError: the class is not one of ``CLASSES`` or the size is not between 32 and 2048 pixels.

    """
    check_size(kind=kind, size=size)
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
    progress: Optional[Progress] = None,
) -> None:
    """Draw ``per_class`` PNG pictures of each class into ``folder/<class>/<class>_<number>.png``.

    A folder that was begun with the same settings is completed; pictures that are there are not drawn again.
    ``progress`` is called with the number of pictures done and the number of all.

    Raises:
        SettingsError: a number is out of range, or the folder holds something else already.
        StorageError: the folder cannot be written (also ``DiskFullError``, ``ReadOnlyError``).

    """
    check_size(size=size, per_class=per_class)
    note = {"look": _LOOK, "per_class": per_class, "seed": seed, "size": size}
    fill_folder(
        folder,
        CLASSES,
        note,
        per_class=per_class,
        draw=lambda kind, number: draw_picture(kind, size, picture_rng(seed, kind, number)),
        progress=progress,
    )


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


def check_size(*, size: int, kind: Optional[str] = None, per_class: int = 1) -> None:
    """Raise ``SettingsError`` for a class, a size or a number that cannot be drawn."""
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
