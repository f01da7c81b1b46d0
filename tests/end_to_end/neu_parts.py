"""Pictures for the closing scripts: real NEU ones where they are, drawn surfaces elsewhere."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Dict, List, Tuple

from fedsim.synthetic import draw_dataset

DATA = Path(os.environ.get("FEDSPECT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def deal(folder: Path, plants: List[str], each: int) -> Tuple[List[str], Dict[str, Path]]:
    """Give each plant its own pictures, ``each`` of every class, in a folder a class.

    Returns:
        the classes, and each plant's folder; groups of overlapping pictures stay at one plant.

    """
    folders = {plant: folder / f"pictures-{plant}" for plant in plants}
    if not (DATA / "neu_split.csv").exists():
        source = folder / "drawn"
        draw_dataset(source, per_class=each * len(plants), size=200, seed=1)
        names = sorted(path.name for path in source.iterdir() if path.is_dir())
        for name in names:
            pictures = sorted((source / name).iterdir())
            for place, plant in enumerate(plants):
                _copy(pictures[place * each : (place + 1) * each], folders[plant] / name)
        return names, folders
    by_class: Dict[str, Dict[str, List[Path]]] = {}
    with (DATA / "neu_split.csv").open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            groups = by_class.setdefault(row["class"], {})
            groups.setdefault(row["group"], []).append(DATA / "neu" / row["path"])
    for name, groups in by_class.items():
        dealt = dict.fromkeys(plants, 0)
        for _, pictures in sorted(groups.items()):
            plant = min(plants, key=lambda one: (dealt[one], one))
            room = each - dealt[plant]
            if room == 0:
                break
            _copy(pictures[:room], folders[plant] / name)
            dealt[plant] += len(pictures[:room])
    return sorted(by_class), folders


def _copy(pictures: List[Path], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        shutil.copy(picture, target / picture.name)
