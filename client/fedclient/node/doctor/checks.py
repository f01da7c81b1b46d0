"""One line of `fedclient doctor`, and how a look becomes lines whatever goes wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fedspect.errors import FedspectError

Level = Literal["ok", "warning", "failure"]
GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """What was looked at, how it stands, what was found, and what to do about it."""

    name: str
    level: Level
    found: str
    remedy: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The line for ``--json``."""
        return asdict(self)


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, "ok", found)


def warning(name: str, found: str, remedy: str) -> Check:
    """The plant can take part, but."""
    return Check(name, "warning", found, remedy)


def failure(name: str, error: FedspectError) -> Check:
    """The plant cannot take part, and the command ends with the error's exit code."""
    found = error.what if error.seen is None else f"{error.what} ({error.seen})"
    return Check(name, "failure", found, error.remedy or "", error.exit_code)


def guarded(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """The lines of a look; an error in it is a line too."""
    try:
        yield from look()
    except FedspectError as error:
        yield failure(name, error)
    except (OSError, ValueError) as error:
        yield warning(name, f"could not be looked at: {error}", "see whether this user may read it")


def worst(checks: Iterable[Check]) -> int:
    """The exit code for these checks: the first failure's, or 0."""
    return next((check.exit_code for check in checks if check.level == "failure"), 0)
