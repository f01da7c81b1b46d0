"""Pictures of many materials, sound and with defects, for pre-training: ``material-sound``, ``material-scratch``.

A scene is a material (``materials``), a defect that fits it (``faults``) and a camera (``cameras``). Each picture has
its own random stream, derived from (seed, class, number), so sets grow without end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from fedsim.synthetic.cameras import photograph
from fedsim.synthetic.drawing import check_size, picture_rng
from fedsim.synthetic.faults import BRITTLE, FAULTS, piece_edge
from fedsim.synthetic.folders import Progress, fill_folder
from fedsim.synthetic.materials import MATERIALS, draw_material
from fedspect.errors import SettingsError

SOUND = "sound"
_LOOK = 1  # raised whenever the same seed would draw another picture
SCENES: dict[str, tuple[str, str]] = {
    f"{material}-{fault}": (material, fault)
    for material in MATERIALS
    for fault in (SOUND, *(name for name, (_, fits) in FAULTS.items() if material in fits))
}
"""By class, its material and its defect."""
EDGED = (*BRITTLE, "wood", "cast")
"""Materials whose sound pictures may show an edge."""


def draw_scene(kind: str, size: int, rng: np.random.Generator, *, channels: int = 1) -> NDArray[np.uint8]:
    """Draw one picture of class ``kind``: uint8 (size, size) in grey, (size, size, 3) in colour.

    Raises:
        SettingsError: the class is not one of ``SCENES`` or the size is out of range.

    """
    check_size(size=size)
    if kind not in SCENES:
        raise SettingsError("no such scene", seen=kind, accepted=", ".join(SCENES))
    name, fault = SCENES[kind]
    material = draw_material(name, size, rng)
    if fault != SOUND:
        FAULTS[fault][0](material, rng)
    elif name in EDGED and rng.random() < 0.3:
        piece_edge(material, rng)
    return photograph(material, channels, rng)


def draw_scenes(
    folder: Path,
    *,
    per_class: int,
    size: int,
    seed: int,
    channels: int = 1,
    progress: Optional[Progress] = None,
) -> None:
    """Draw ``per_class`` PNG pictures of each class into ``folder/<class>/<class>_<number>.png``.

    Raises:
        SettingsError: a number is out of range, or the folder holds something else already.
        StorageError: the folder cannot be written.

    """
    check_size(size=size, per_class=per_class)
    fill_folder(
        folder,
        tuple(SCENES),
        {"scenes": _LOOK, "per_class": per_class, "seed": seed, "size": size, "channels": channels},
        per_class=per_class,
        draw=lambda kind, number: draw_scene(kind, size, picture_rng(seed, kind, number), channels=channels),
        progress=progress,
    )
