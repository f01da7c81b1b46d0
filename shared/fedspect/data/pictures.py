"""The words for one picture: as it was listed, as it was checked, and what can be wrong with it.

A *picture* is a file with a class name beside it. A *checked picture* has been decoded once: its content hash
and size are known, and it belongs to a *group* of pictures that show the same piece of surface. A *problem*
names a file and says in a few words why it was left out, or what somebody should look at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Optional

from fedspect.data.depth import Levels

DIGEST_LENGTH = 32

# Kinds of problems. A picture with one of LEFT_OUT is not used; the others are remarks.
MISSING = "missing"
OUTSIDE = "outside the root"
UNREADABLE = "unreadable"
TRUNCATED = "truncated"
TOO_LARGE = "too large"
NOT_A_PICTURE = "not a picture"
UNLABELLED = "no class"
UNKNOWN_CLASS = "unknown class"
REPEATED = "listed twice"
SET_ASIDE = "set aside"
UNSUPPORTED = "unsupported format"
LEFT_OUT = (
    UNSUPPORTED,
    MISSING,
    OUTSIDE,
    UNREADABLE,
    TRUNCATED,
    TOO_LARGE,
    NOT_A_PICTURE,
    UNLABELLED,
    UNKNOWN_CLASS,
    REPEATED,
    SET_ASIDE,
)

CLASS_SPELLING = "class spelt in several ways"
MASK = "mask"
IGNORED = "no picture by its name"
EMPTY_CLASS = "class folder without pictures"
ABSENT_CLASS = "class without pictures"
DUPLICATE = "exact duplicate"
CONFLICTING_LABELS = "same picture, different classes"
CROSSING_GROUPS = "same surface in different groups"
ALMOST_BLACK = "almost black"
ALMOST_WHITE = "almost white"
BEYOND_DEPTH = "brighter than the camera's bit depth"


@dataclass(frozen=True)
class Problem:
    """What is wrong with one file or class: its name as listed, one of the kinds above, and the detail."""

    name: str
    kind: str
    detail: str

    @property
    def left_out(self) -> bool:
        """Whether the picture is not used because of this."""
        return self.kind in LEFT_OUT


@dataclass(frozen=True)
class Picture:
    """One listed picture; nothing of it has been read yet.

    ``name`` is its path relative to the source with forward slashes, the same on every machine. ``group`` and
    ``split`` come from a manifest (``split`` also from folders named train, test or validation). ``columns``
    holds every further column of the manifest as text.
    """

    path: Path
    name: str
    label: Optional[str] = None
    group: Optional[str] = None
    split: Optional[str] = None
    columns: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def column(self, name: str) -> Optional[str]:
        """The value of a manifest's column: ``group``, ``split``, ``class`` or any further one."""
        known = {"class": self.label, "label": self.label, "group": self.group, "split": self.split}
        value = known.get(name)
        return value if value is not None else self.columns.get(name)


@dataclass(frozen=True)
class CheckedPicture:
    """A picture that was decoded without a fault.

    ``digest`` is the first 32 hex digits of the SHA-256 of the file's bytes; ``width`` and ``height`` are
    pixels, ``channels`` 1 or 3 as stored, ``bits`` the bits per channel as stored; pictures of one ``group``
    show the same piece of surface and must stay on one side of a split. ``levels`` are known after an inspection.
    """

    picture: Picture
    digest: str
    width: int
    height: int
    channels: int
    bits: int
    group: str
    levels: Optional[Levels] = field(default=None, compare=False, repr=False)

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.picture.path

    @property
    def name(self) -> str:
        """Its path relative to the source, with forward slashes."""
        return self.picture.name

    @property
    def label(self) -> Optional[str]:
        """The class name, or None for a picture that nobody has labelled."""
        return self.picture.label
