"""Number formatting for people.

Every number of a report passes through here, so that the same thing reads the same everywhere and a missing
value is a dash, never ``None`` or ``nan``.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import List, Optional, Tuple

MISSING = "–"
_SURE = 1.959964  # standard normal quantile of a 95 % interval


def percent(share: Optional[float], digits: int = 1) -> str:
    """0.9721 as ``97.2 %`` (with a narrow no-break space)."""
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{100 * share:.{digits}f}\u202f%"


def points(difference: Optional[float], digits: int = 1) -> str:
    """A difference of two shares with its sign: 0.034 as ``+3.4``."""
    if difference is None or not math.isfinite(difference):
        return MISSING
    text = f"{100 * difference:+.{digits}f}"
    return text.replace("-", "−") if float(text) else f"±{0:.{digits}f}"


def number(value: Optional[float], digits: int = 3) -> str:
    """A plain number with a fixed count of decimals."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def count(value: Optional[int]) -> str:
    """12345 as ``12,345``."""
    return MISSING if value is None else f"{value:,}"


def size(amount: Optional[float]) -> str:
    """Bytes in the unit that suits: ``912 B``, ``48.3 kB``, ``2.5 MB``."""
    if amount is None:
        return MISSING
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000 or unit == "GB":
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.{0 if abs(amount) >= 100 else 1}f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def duration(seconds: Optional[float]) -> str:
    """Seconds as ``0.4 s``, ``48 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def likely_range(correct: int, total: int) -> Optional[tuple[float, float]]:
    """The 95 % interval of a share after Wilson (1927); None for no pictures."""
    if total <= 0:
        return None
    share, square = correct / total, _SURE**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = _SURE / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def moment(when: Optional[datetime]) -> str:
    """A date and time of day, in the zone that it was written in."""
    return "" if when is None else f"{when.day} {when:%B %Y, %H:%M}"


def plural(amount: int, one: str, many: Optional[str] = None) -> str:
    """``1 plant``, ``4 plants``."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""


def share_of(found: Optional[Tuple[str, float]]) -> str:
    """A name with its share, such as the class that is found least well: ``pit (81.0 %)``."""
    return MISSING if found is None else f"{found[0]} ({percent(found[1])})"


def natural_order(name: str) -> List[Tuple[int, str]]:
    """A sort key that puts plant-2 before plant-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
