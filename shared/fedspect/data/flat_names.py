"""Classes from file names, for the two public sets that come as one flat folder.

NEU: ``crazing_12.jpg``, or ``Cr_12.bmp`` with the abbreviations of its authors (Song and Yan 2013). Ball screws:
``P(12).png`` and ``N_12.png``, P with pitting and N without (Schlagenhauf et al.).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import List, Tuple

from fedspect.data.classes import ClassList
from fedspect.data.pictures import UNLABELLED, Picture, Problem

NEU_NAMES = {
    "cr": "crazing",
    "in": "inclusion",
    "pa": "patches",
    "ps": "pitted_surface",
    "rs": "rolled-in_scale",
    "sc": "scratches",
}
NEU_CLASSES = tuple(NEU_NAMES.values())
NEU_PATTERN = re.compile(
    r"(?P<word>crazing|inclusion|patches|pitted[_\- ]surface|rolled[_\- ]in[_\- ]scale|scratches"
    r"|cr|in|pa|ps|rs|sc)[_\- ]?\(?\d+\)?",
    re.IGNORECASE,
)
BALL_SCREW_PATTERN = re.compile(r"(?P<word>[PN])(\s*\(.*\)|[_\- ]?\d.*|_.*)")


def label_by_name(files: List[Tuple[Path, PurePosixPath]]) -> Tuple[str, List[Picture], List[Problem]]:
    """NEU names or ball screw names, whichever more of the files have."""
    neu = {path: NEU_PATTERN.fullmatch(path.stem) for path, _ in files}
    ball_screw = {path: BALL_SCREW_PATTERN.fullmatch(path.stem) for path, _ in files}
    kind, matches = max(
        (("neu names", neu), ("ball screw names", ball_screw)),
        key=lambda item: sum(m is not None for m in item[1].values()),
    )
    if not any(matches.values()):
        return "unlabelled", [Picture(path, name.as_posix()) for path, name in files], []
    pictures: List[Picture] = []
    problems: List[Problem] = []
    neu_words = ClassList(NEU_CLASSES, NEU_NAMES)
    for path, name in files:
        match = matches[path]
        if match is None:
            problems.append(Problem(name.as_posix(), UNLABELLED, f"its name does not begin as {kind} do"))
            continue
        word = match.group("word")
        pictures.append(
            Picture(path, name.as_posix(), neu_words.resolve(word) if kind == "neu names" else word)
        )
    return kind, pictures, problems
