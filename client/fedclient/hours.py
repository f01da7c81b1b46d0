"""Daily time windows such as ``22:00-06:00``, in the device's local time.

A window begins at its first minute and ends before its last; it may go over midnight. ``00:00-24:00`` is
the whole day. Daylight saving moves the clock, and the windows with it: they are what a clock on the wall
shows.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Callable, Iterable, Optional, Tuple

DAY = 24 * 60  # minutes
_WINDOW = re.compile(r"\s*(\d{1,2}):(\d{2})\s*[-–]\s*(\d{1,2}):(\d{2})\s*")

LocalTime = Callable[[float], time.struct_time]


@dataclass(frozen=True)
class Window:
    """From one minute of the day to before another; ``first`` in 0 to 1439, ``end`` in 0 to 1440."""

    first: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """Parse ``22:00-06:00``.

        Raises:
            ValueError: it says none.

        """
        found = _WINDOW.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a window of hours such as 22:00-06:00")
        first, end = (_minute(hour, minute) for hour, minute in (found.groups()[:2], found.groups()[2:]))
        if first >= DAY or end > DAY:
            raise ValueError(f"{text!r} names a time that no clock shows (00:00 to 24:00)")
        if first == end:
            raise ValueError(f"{text!r} is no time at all; the whole day is 00:00-24:00")
        return cls(first, end)

    def holds(self, minute: int) -> bool:
        """Whether a minute of the day lies in it."""
        if self.first < self.end:
            return self.first <= minute < self.end
        return minute >= self.first or minute < self.end

    def __str__(self) -> str:
        return f"{self.first // 60:02}:{self.first % 60:02}-{self.end // 60:02}:{self.end % 60:02}"


@dataclass(frozen=True)
class Hours:
    """Several windows; none means at any time."""

    windows: Tuple[Window, ...] = ()
    local: LocalTime = time.localtime

    @classmethod
    def parse(cls, texts: Iterable[str], local: LocalTime = time.localtime) -> Hours:
        """Parse windows, several in one text with commas between them; ValueError for other text."""
        parts = [part for text in texts for part in text.split(",") if part.strip()]
        return cls(tuple(Window.parse(part) for part in parts), local)

    def allow(self, now: float) -> bool:
        """Whether ``now`` (seconds since 1970) lies in one of the windows."""
        if not self.windows:
            return True
        clock = self.local(now)
        minute = clock.tm_hour * 60 + clock.tm_min
        return any(window.holds(minute) for window in self.windows)

    def opening(self, now: float) -> Optional[float]:
        """The next time, to the minute, from which on they allow; ``now`` if they do, ``None`` if never."""
        if self.allow(now):
            return now
        begin = now - now % 60
        # Minute by minute over two days: the one way that is right on the night when clocks are moved.
        return next((begin + 60.0 * k for k in range(1, 2 * DAY + 1) if self.allow(begin + 60.0 * k)), None)

    def __str__(self) -> str:
        return ", ".join(map(str, self.windows)) or "at any time"


def _minute(hour: str, minute: str) -> int:
    if int(minute) > 59:
        return DAY + 1
    return int(hour) * 60 + int(minute)
