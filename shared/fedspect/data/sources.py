"""Finding pictures and their classes where plants have them.

Four kinds of source are told apart by looking:

- *folders*: one folder per class, also below or above those of a split (``folder_layout.py``);
- *names*: one folder whose file names begin with the class: NEU's ``crazing_12.jpg`` and ``Cr_12.bmp``, and
  the ball screw set's ``P(12).png`` and ``N_12.png`` (P with pitting, N without);
- *manifest*: a CSV or Parquet list of path, class and group (``manifest.py``);
- *unlabelled*: one folder of other names, only where the caller can do without classes.

Nothing is decoded here. A file that cannot be used is named among the problems; no path leads out of the
root.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Dict, List, Optional, Sequence, Tuple

from fedspect.data import manifest as manifests
from fedspect.data.classes import ClassList, class_list, composed, spelt_alike
from fedspect.data.decode import SUFFIXES
from fedspect.data.flat_names import label_by_name
from fedspect.data.folder_layout import understand
from fedspect.data.pictures import (
    CLASS_SPELLING,
    IGNORED,
    MASK,
    MISSING,
    OUTSIDE,
    REPEATED,
    UNKNOWN_CLASS,
    UNLABELLED,
    UNREADABLE,
    UNSUPPORTED,
    Picture,
    Problem,
)
from fedspect.errors import ClassError, NoPicturesError

TRAINING, TESTING = ("train", "training"), ("test", "testing")
OTHER_PICTURES = (".webp", ".gif", ".heic", ".avif", ".jp2", ".jxl", ".exr", ".raw", ".dng", ".tga", ".pcx")
"""Pictures that are not read: they are named, and no other file is worth a warning."""


def own_split(pictures: Sequence[Picture]) -> bool:
    """Whether pictures come with a split of their own: some to train with, and others to test with."""
    sides = {(picture.split or "").casefold() for picture in pictures}
    return bool(sides & set(TRAINING)) and bool(sides & set(TESTING))


@dataclass(frozen=True)
class Listing:
    """What was found: the pictures sorted by name, and what is wrong.

    ``root`` holds every picture; ``classes`` are the caller's or those that occur; ``ignored`` counts files
    whose names are not those of pictures.
    """

    root: Path
    kind: str
    pictures: Tuple[Picture, ...]
    problems: Tuple[Problem, ...]
    classes: Optional[ClassList]
    ignored: int = 0

    @property
    def understood(self) -> str:
        """What was understood of the source, in one sentence."""
        classes = len({picture.label for picture in self.pictures if picture.label is not None})
        counts = Counter(picture.split for picture in self.pictures if picture.split is not None)
        text = f"{len(self.pictures):,} pictures of {classes} classes by {self.kind}"
        if counts:
            sides = ", ".join(f"{count:,} {side}" for side, count in sorted(counts.items()))
            yours = "the split is yours" if own_split(self.pictures) else "one side only, which is no split"
            text += f"; {yours} ({sides})"
        left_out = sum(problem.left_out for problem in self.problems)
        masks = sum(problem.kind == MASK for problem in self.problems)
        text += f"; masks in {masks} folders are no pictures" if masks else ""
        return text + (f"; {left_out:,} files left out" if left_out else "")

    def require(self, *, pictures: int = 1, classes: int = 2) -> None:
        """Make sure that there is enough to train with.

        Raises:
            NoPicturesError: fewer pictures than needed.
            ClassError: fewer classes with pictures than needed.

        """
        if len(self.pictures) < pictures:
            raise NoPicturesError(
                "there are too few pictures",
                seen=f"{len(self.pictures)} in {self.root}",
                accepted=f"at least {pictures}",
            )
        present = sorted({picture.label for picture in self.pictures if picture.label is not None})
        if len(present) < classes:
            nested = any(picture.name.count("/") > 1 for picture in self.pictures)
            raise ClassError(
                "there are too few classes",
                seen=", ".join(present) or "none",
                accepted=f"at least {classes}",
                remedy=f"name the folder {present[0]} itself, its folders may be the classes"
                if present and nested
                else "make one folder per class, or give a list of pictures with their classes",
            )


def find_pictures(
    source: Path,
    *,
    classes: Optional[ClassList] = None,
    manifest: Optional[Path] = None,
    root: Optional[Path] = None,
    labelled: bool = True,
) -> Listing:
    """List the pictures of a folder, or of a manifest (as ``source`` or as ``manifest``).

    A manifest's paths are relative to ``root``, else to ``source`` where that is a folder, else to the
    manifest's folder. With ``classes``, labels are resolved and pictures of other classes are left out;
    without, the classes are those that occur. ``labelled=False`` accepts pictures without a class.

    Raises:
        NoPicturesError: no such folder, or nothing usable in it.
        ClassError: no class can be told, every class is unknown, or classes differ only in case.
        ManifestError: the manifest cannot be used.

    """
    if manifest is None and (source.suffix.lower() in manifests.SUFFIXES and not source.is_dir()):
        source, manifest = source.parent, source
    root = source if root is None else root
    if not root.is_dir():
        raise NoPicturesError(
            "that is a file, not a folder of pictures"
            if root.exists()
            else "there is no such folder of pictures",
            seen=root,
            accepted="a folder, or a CSV or Parquet list",
        )
    if manifest is not None:
        found, problems = _from_manifest(manifest, root)
        kind, ignored = "manifest", 0
    else:
        kind, found, problems, ignored = _from_folder(root)
    if not found and not problems:
        raise NoPicturesError(
            "there are no pictures",
            seen=manifest or root,
            accepted=", ".join(SUFFIXES),
            remedy="point to the folder that holds them",
        )
    if found and kind == "unlabelled" and labelled:
        raise ClassError(
            "the pictures' classes cannot be told from their names",
            seen=f"{root}: {found[0].name}, ...",
            accepted="one folder per class, NEU or ball screw names, or a list with path and class",
        )
    pictures, classes = _labelled(found, problems, classes, labelled)
    if not pictures:
        raise NoPicturesError(
            "no picture can be used",
            seen=f"{problems[0].name}: {problems[0].kind}, {problems[0].detail}; {len(problems)} such",
        )
    return Listing(
        root,
        kind,
        tuple(sorted(pictures, key=lambda picture: picture.name)),
        tuple(problems),
        classes,
        ignored,
    )


def _labelled(
    found: List[Picture], problems: List[Problem], classes: Optional[ClassList], labelled: bool
) -> Tuple[List[Picture], Optional[ClassList]]:
    """The pictures with labels as the class list spells them; others become problems."""
    if labelled:
        problems.extend(
            Problem(picture.name, UNLABELLED, "its class is not given")
            for picture in found
            if picture.label is None
        )
        found = [picture for picture in found if picture.label is not None]
    labels = {picture.label for picture in found if picture.label is not None}
    if not labels:
        return found, classes
    if classes is None:
        for spellings in spelt_alike(labels):
            raise ClassError(
                "classes differ only in case or in the signs between words",
                seen=", ".join(spellings),
                remedy="rename one of them so that they are the same class, or give the list of classes "
                f"(`fedsim ... --classes {spellings[0]},...`, `classes` in fedserver.toml)",
            )
        return found, class_list(labels)
    for spellings in spelt_alike(labels):
        meant = classes.find(spellings[0])
        if meant is not None:
            problems.append(
                Problem(meant, CLASS_SPELLING, f"{', '.join(spellings)} are all taken as {meant}")
            )
    usable = []
    for picture in found:
        name = None if picture.label is None else classes.find(picture.label)
        if picture.label is not None and name is None:
            near = classes.nearest(picture.label)
            hint = f"; did you mean {near!r}?" if near else ""
            problems.append(
                Problem(picture.name, UNKNOWN_CLASS, f"{picture.label!r} is not among the classes{hint}")
            )
        else:
            usable.append(replace(picture, label=name))
    if not usable:
        raise ClassError(
            "every picture is of an unknown class",
            seen=", ".join(sorted(labels)),
            accepted=", ".join(classes.names),
        )
    return usable, classes


def _from_manifest(path: Path, root: Path) -> Tuple[List[Picture], List[Problem]]:
    pictures: Dict[str, Picture] = {}
    problems: List[Problem] = []
    inside = os.path.realpath(str(root))
    for row in manifests.read_manifest(path):
        if not row.path:
            problems.append(Problem("(no path)", MISSING, "a row of the list has no path"))
            continue
        file = root / row.path
        if not _is_inside(file, inside):
            problems.append(Problem(row.path, OUTSIDE, "the path leads out of the folder of pictures"))
            continue
        if not _is_file(file):
            file = root / row.path.replace("\\", "/")
            if not row.path.isascii() and root in file.parents:
                file = _composed_twin(root, file)
            if not _is_inside(file, inside) or not _is_file(file):
                problems.append(Problem(row.path, MISSING, "there is no such file"))
                continue
        name = PurePosixPath(os.path.relpath(str(file), str(root))).as_posix()
        if name in pictures:
            problems.append(
                Problem(name, REPEATED, "a second row of the list names it; the first one counts")
            )
            continue
        label = None if row.label is None else composed(row.label)
        pictures[name] = Picture(file, name, label, row.group, row.split, dict(row.columns))
    return list(pictures.values()), problems


def _from_folder(root: Path) -> Tuple[str, List[Picture], List[Problem], int]:
    files: List[Tuple[Path, PurePosixPath]] = []
    problems: List[Problem] = []
    ignored = 0
    folders_seen: List[PurePosixPath] = []
    inside = os.path.realpath(str(root))

    def cannot_list(error: OSError) -> None:
        name = os.path.relpath(str(error.filename), str(root))
        problems.append(Problem(_printable(name), UNREADABLE, f"the folder: {error.strerror}"))

    for folder, folders, names in os.walk(str(root), onerror=cannot_list):
        shown = sorted(name for name in folders if not name.startswith((".", "__")))
        links = [name for name in shown if (Path(folder) / name).is_symlink()]
        folders[:] = [name for name in shown if name not in links]
        folders_seen += [PurePosixPath(os.path.relpath(folder, str(root))) / name for name in folders]
        for name in links:
            linked = os.path.relpath(str(Path(folder) / name), str(root))
            problems.append(
                Problem(_printable(linked), UNREADABLE, "the folder: it is a link; no link is followed")
            )
        for name in sorted(names):
            path = Path(folder) / name
            relative = PurePosixPath(path.relative_to(root).as_posix())
            if name.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES:
                known = path.suffix.lower() in OTHER_PICTURES
                ignored += not known
                detail = f"{path.suffix.lower()} is not read; save it as PNG" if known else "it is left alone"
                found = UNSUPPORTED if known else IGNORED
                problems.append(Problem(_printable(str(relative)), found, detail))
            elif _printable(str(relative)) != str(relative):
                problems.append(Problem(_printable(str(relative)), UNREADABLE, "its name is not UTF-8"))
            elif not _is_inside(path, inside):
                problems.append(
                    Problem(str(relative), OUTSIDE, "the link leads out of the folder of pictures")
                )
            else:
                files.append((path, relative))
    in_folders = [(path, relative) for path, relative in files if len(relative.parts) > 1]
    loose = [(path, relative) for path, relative in files if len(relative.parts) == 1]
    if in_folders:
        problems.extend(
            Problem(str(name), UNLABELLED, "it lies beside the folders of the classes") for _, name in loose
        )
        layout = understand(in_folders, folders_seen)
        kind = "folders" if layout.pictures else "unlabelled"
        return kind, layout.pictures, [*problems, *layout.problems], ignored
    kind, pictures, unnamed = label_by_name(loose)
    problems.extend(unnamed)
    return kind, pictures, problems, ignored


def _composed_twin(root: Path, file: Path) -> Path:
    """The file below ``root`` whose name looks the same; a Mac decomposes the letters of names."""
    found = [root]
    for part in file.relative_to(root).parts:
        found = [
            each for folder in found for each in _entries(folder) if composed(each.name) == composed(part)
        ]
    return found[0] if found else file


def _entries(folder: Path) -> List[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _printable(name: str) -> str:
    """A name as it may stand in a report: bytes that are no UTF-8 become question marks."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _is_inside(path: Path, real_root: str) -> bool:
    try:
        real = os.path.realpath(str(path))
    except (OSError, ValueError):
        return False
    return real.startswith(real_root.rstrip(os.sep) + os.sep)
