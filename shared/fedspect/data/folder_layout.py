"""Folder layout: which folders are classes, which are sides of a split, and which hold masks.

Understood are class folders, split/class (``train/pit``), class/split (``pit/train``), MVTec AD (split/class beside
``ground_truth``), and names that tell the class below splits. Folders that only hold pictures (``images``) and one
folder around all of it count for nothing. A split or a mask never becomes a class: what contradicts itself is
an error.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from fedspect.data.classes import composed
from fedspect.data.flat_names import label_by_name
from fedspect.data.pictures import EMPTY_CLASS, MASK, UNLABELLED, Picture, Problem
from fedspect.errors import ClassError

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
}
MASK_FOLDERS = ("ground_truth", "groundtruth", "gt", "mask", "masks", "annotation", "annotations")
MASK_ENDS = ("_mask", "_gt", "_label")
PICTURE_FOLDERS = ("images", "imgs", "jpegimages", "pictures")

File = Tuple[Path, PurePosixPath]


class LayoutError(ClassError):
    """Folders contradict each other: some are sides of a split, and others are not."""


@dataclass
class Layout:
    """What the folders mean: the pictures with class and split, and files that are none of them."""

    pictures: List[Picture] = field(default_factory=list)
    problems: List[Problem] = field(default_factory=list)


def understand(files: Sequence[File], folders: Iterable[PurePosixPath]) -> Layout:
    """The layout of pictures that lie in folders; ``folders`` are all that there are, for those without pictures.

    Raises:
        LayoutError: folders of a split lie beside others, or below some classes only.

    """
    layout = Layout()
    files = _without_masks(files, layout)
    around = _around(files)
    places = [(path, name, _place(name, around)) for path, name in files]
    tops = {place[0] for _, _, place in places if place}
    sides = {top for top in tops if _side(top)}
    if sides and tops - sides:
        raise LayoutError(
            "folders of a split lie beside others",
            seen=f"{', '.join(sorted(sides))} beside {', '.join(sorted(tops - sides)[:5])}",
            accepted="class folders below train and test, or class folders alone",
            remedy="move the others below train or test, or out of this folder",
        )
    below = {
        top: {place[1] for _, _, place in places if place[:1] == (top,) and len(place) > 1} for top in tops
    }
    if sides:
        _split_first(places, layout)
    elif any(_side(name) for names in below.values() for name in names):
        _class_first(places, below, layout)
    else:
        for path, name, place in places:
            _add(layout, path, name, place[:1], None)
    level = 2 if sides else 1
    full = {name for _, name in files}
    for folder in folders:
        place = _place(folder / "x", around)
        empty = len(place) == level and not any(folder in name.parents for name in full)
        masks = any(part.lower() in MASK_FOLDERS for part in folder.parts)
        if empty and not masks and not _side(place[-1]):
            layout.problems.append(Problem(str(folder), EMPTY_CLASS, "the folder holds no picture"))
    return layout


def _side(name: str) -> Optional[str]:
    return SPLIT_FOLDERS.get(name.lower())


def _place(name: PurePosixPath, around: int) -> Tuple[str, ...]:
    """The folders of a file that may mean something."""
    return tuple(part for part in name.parts[around:-1] if part.lower() not in PICTURE_FOLDERS)


def _around(files: Sequence[File]) -> int:
    """1 where one folder lies around those of a split, as in an archive that was unpacked."""
    places = [_place(name, 0) for _, name in files]
    one = len({place[:1] for place in places}) == 1 and not _side(places[0][0] if places[0] else "")
    seconds = {place[1] if len(place) > 1 else "" for place in places}
    deeper = all(len(place) > 2 for place in places)
    return int(one and deeper and all(_side(each) for each in seconds)) if places else 0


def _without_masks(files: Sequence[File], layout: Layout) -> List[File]:
    """The pictures but for masks, which are told by their folder, or by a name beside that of their picture."""
    names = {(str(name.parent), name.stem) for _, name in files}
    kept: List[File] = []
    masks: Counter[str] = Counter()
    for path, name in files:
        ends = [name.stem[: -len(end)] for end in MASK_ENDS if name.stem.lower().endswith(end)]
        folder = next((part for part in name.parts[:-1] if part.lower() in MASK_FOLDERS), None)
        if folder is not None or any((str(name.parent), stem) in names for stem in ends):
            masks[str(name.parent)] += 1
        else:
            kept.append((path, name))
    if not kept:  # then they are what there is
        return list(files)
    layout.problems.extend(
        Problem(folder, MASK, f"{count} masks, which are no pictures")
        for folder, count in sorted(masks.items())
    )
    return kept


Placed = Tuple[Path, PurePosixPath, Tuple[str, ...]]


def _split_first(places: Sequence[Placed], layout: Layout) -> None:
    if all(len(place) == 1 for _, _, place in places):  # names tell the classes
        _, pictures, problems = label_by_name([(path, name) for path, name, _ in places])
        sides = {name.as_posix(): _side(place[0]) for _, name, place in places}
        for each in pictures:
            layout.pictures.append(Picture(each.path, each.name, each.label, None, sides[each.name]))
        layout.problems.extend(problems)
        return
    for path, name, place in places:
        _add(layout, path, name, place[1:2], _side(place[0]) if place else None)


def _class_first(places: Sequence[Placed], below: Dict[str, set[str]], layout: Layout) -> None:
    sided = sorted(top for top, names in below.items() if any(_side(name) for name in names))
    if len(sided) < len(below):
        others = ", ".join(sorted(set(below) - set(sided))[:5])
        raise LayoutError(
            "folders of a split lie below some classes only",
            seen=f"below {', '.join(sided[:5])}, not below {others}",
            accepted="train and test below every class, or class folders below train and test",
            remedy="give every class the same folders",
        )
    if any(len(place) > 2 for _, _, place in places):
        raise LayoutError(
            "folders look like several sets of pictures, each with a split of its own",
            seen=", ".join(sided[:5]),
            accepted="one set",
            remedy="name one of them",
        )
    for path, name, place in places:
        side = _side(place[1]) if len(place) > 1 else None
        _add(layout, path, name, place[:1] if side else (), side)


def _add(
    layout: Layout, path: Path, name: PurePosixPath, label: Tuple[str, ...], side: Optional[str]
) -> None:
    if label:
        layout.pictures.append(Picture(path, name.as_posix(), composed(label[0]), None, side))
    else:
        layout.problems.append(Problem(str(name), UNLABELLED, "it lies beside the folders of the classes"))
