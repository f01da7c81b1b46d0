"""Result of a check, and a guard that turns an error within a check into a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fedspect.errors import FedspectError

Level = Literal["ok", "warning", "failure"]
GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """What was checked, its state, what was found, and the remedy."""

    name: str
    level: Level
    found: str
    remedy: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The line for ``--json``."""
        return asdict(self)


def ok(name: str, found: str) -> Check:
    """A passed check."""
    return Check(name, "ok", found)


def warning(name: str, found: str, remedy: str) -> Check:
    """A warning: the plant can take part."""
    return Check(name, "warning", found, remedy)


def failure(name: str, error: FedspectError) -> Check:
    """A failed check: the plant cannot take part, and the command ends with the error's exit code."""
    found = error.what if error.seen is None else f"{error.what} ({error.seen})"
    return Check(name, "failure", found, error.remedy or "", error.exit_code)


def guarded(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """The results of a check function; an error in it is a result too."""
    try:
        yield from look()
    except FedspectError as error:
        yield failure(name, error)
    except (OSError, ValueError) as error:
        yield warning(name, f"could not be looked at: {error}", "see whether this user may read it")


def worst(checks: Iterable[Check]) -> int:
    """The exit code for these checks: the first failure's, or 0."""
    return next((check.exit_code for check in checks if check.level == "failure"), 0)
