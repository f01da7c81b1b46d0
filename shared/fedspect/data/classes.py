"""The list of classes and the other names that people use for them.

The list belongs to the federation: a plant may lack classes, never add them. Plants spell the same class in
different ways (``Rolled-in_Scale``, ``rolled in scale``, ``RS``), so a label is looked up without regard to
case and to the signs between words, then among the aliases.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Dict, Iterable, List, Mapping, Optional, Tuple

from fedspect.errors import ClassError, nearest


def composed(name: str) -> str:
    """A name with its letters composed (Unicode NFC): a Mac decomposes them, and the eye sees no difference."""
    return unicodedata.normalize("NFC", name)


def folded(label: str) -> str:
    """A label without case and with one sign between words: what two spellings of one class share."""
    return composed(re.sub(r"[\s_\-]+", "_", label.strip()).casefold())


def spelt_alike(labels: Iterable[str]) -> List[Tuple[str, ...]]:
    """The sets of labels that are the same word in different spellings, each sorted."""
    by_word: Dict[str, List[str]] = {}
    for label in sorted(set(labels)):
        by_word.setdefault(folded(label), []).append(label)
    return [tuple(spellings) for spellings in by_word.values() if len(spellings) > 1]


@dataclass(frozen=True)
class ClassList:
    """The classes in the order of the network's outputs, and aliases for them.

    Raises:
        ClassError: no names, an empty one, two that differ only in case or in the signs between words, or an
            alias that names no class or two of them.

    """

    names: Tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(composed(name) for name in self.names))
        unreadable = [name for name in self.names if any("\ud800" <= sign <= "\udfff" for sign in name)]
        if unreadable:
            raise ClassError(
                "a class has a name that is not UTF-8",
                seen=ascii(unreadable[0]),
                remedy="set the terminal to UTF-8 (export LC_ALL=C.UTF-8) and type it again",
            )
        if not self.names:
            raise ClassError("the list of classes is empty", remedy="name at least two classes")
        if any(not folded(name).strip("_") for name in self.names):
            raise ClassError("a class has an empty name", seen=list(self.names))
        if len(set(self.names)) < len(self.names):
            raise ClassError("a class is named twice", seen=list(self.names))
        for spellings in spelt_alike(self.names):
            raise ClassError(
                "two classes differ only in case or in the signs between words",
                seen=", ".join(spellings),
                remedy="keep one of them; pictures labelled with the other are understood all the same",
            )
        words = {folded(name): name for name in self.names}
        for alias, name in self.aliases.items():
            if folded(name) not in words:
                raise ClassError(
                    f"the alias {alias!r} stands for an unknown class",
                    seen=name,
                    accepted=", ".join(self.names),
                )
            meant = words[folded(name)]
            if words.setdefault(folded(alias), meant) != meant:
                raise ClassError(
                    f"the alias {alias!r} means two classes", seen=f"{words[folded(alias)]}, {meant}"
                )
        object.__setattr__(self, "_words", words)

    def find(self, label: str) -> Optional[str]:
        """The class that a label means, or None."""
        words: Dict[str, str] = self.__dict__["_words"]
        return words.get(folded(label))

    def resolve(self, label: str) -> str:
        """The class that a label means.

        Raises:
            ClassError: it means none; the message suggests the nearest one.

        """
        name = self.find(label)
        if name is None:
            near = self.nearest(label)
            raise ClassError(
                "the class is unknown",
                seen=label,
                accepted=", ".join(self.names),
                remedy=f"did you mean {near!r}?" if near else "rename it, or add an alias for it",
            )
        return name

    def nearest(self, label: str) -> Optional[str]:
        """The class that an unknown label looks most like, if any does."""
        words: Dict[str, str] = self.__dict__["_words"]
        near = nearest(folded(label), words)
        return None if near is None else words[near]

    def index(self, label: str) -> int:
        """The place among the network's outputs of the class that a label means; errors as ``resolve``."""
        return self.names.index(self.resolve(label))

    def __len__(self) -> int:
        return len(self.names)


def class_list(labels: Iterable[str]) -> ClassList:
    """The classes that occur in some labels, sorted by name; raises ClassError as ``ClassList``."""
    return ClassList(tuple(sorted({composed(label) for label in labels})))


def named_classes(entries: Iterable[str]) -> ClassList:
    """The classes as somebody types them: ``pit``, or ``pit=hole=Loch`` with other names for it.

    Raises:
        ClassError: as ``ClassList``.

    """
    named = [[word.strip() for word in entry.split("=")] for entry in entries]
    return ClassList(
        tuple(name for name, *_ in named), {alias: name for name, *aliases in named for alias in aliases}
    )
