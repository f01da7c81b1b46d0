"""Device utilisation: memory and processor load, as psutil measures them."""

from __future__ import annotations

import time

import psutil

LOAD_OVER = 2.0  # seconds over which the use of processors is measured, at least


class Device:
    """What is looked at on the device; a test puts figures of its own here."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._times()
        self._load = 0.0

    def memory_free(self) -> int:
        """Bytes that programs could still get without swapping."""
        return int(psutil.virtual_memory().available)

    def memory_taken(self) -> int:
        """Bytes that this process has taken."""
        return int(self._process.memory_info().rss)

    def load(self) -> float:
        """The share of all processors that everybody but this process used lately, 0 to 1."""
        at, busy = self._times()
        elapsed = at - self._before[0]
        if elapsed >= LOAD_OVER:
            used = (busy - self._before[1]) / (elapsed * (psutil.cpu_count() or 1))
            self._load = min(1.0, max(0.0, used))
            self._before = (at, busy)
        return self._load

    def _times(self) -> tuple[float, float]:
        everybody, own = psutil.cpu_times(), self._process.cpu_times()
        idle = everybody.idle + getattr(everybody, "iowait", 0.0)
        guest = getattr(everybody, "guest", 0.0) + getattr(everybody, "guest_nice", 0.0)  # counted twice
        return time.monotonic(), sum(everybody) - guest - idle - own.user - own.system
