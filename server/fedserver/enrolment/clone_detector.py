"""Clone detection: two devices that use one plant's key, as when a device's disk was copied.

Both prove that they hold the key, and Flower holds them for one node, which each takes over from the other again and
again. What tells them apart is a random number that a plant makes each time it is started and that is on no disk: a
plant that is started again brings a new one and the old is never heard again, while two devices alternate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MOST_EARLIER = 32  # starts of one plant that are remembered
AGAIN = 3600.0  # seconds until the same is said once more


class CloneDetector:
    """Hears every call of every plant; ``on_clone`` hears the sentence for the operator."""

    def __init__(self, on_clone: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_clone = on_clone
        self._clock = clock
        self._starts: dict[str, list[tuple[bytes, str]]] = {}
        """By plant: each start with the address that it last called from, the last that was heard at the end."""
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def heard(self, plant: str, start: bytes, address: str) -> None:
        """A call of this start of the plant, from this address; calls of single commands have no start."""
        if not start:
            return
        with self._lock:
            starts = self._starts.setdefault(plant, [])
            known = [each for each, _ in starts]
            alternates = start in known[:-1]
            other = starts[-1][1] if starts else ""
            self._starts[plant] = [each for each in starts if each[0] != start][-MOST_EARLIER:]
            self._starts[plant].append((start, address))
            now = self._clock()
            if not alternates or now - self._said.get(plant, -AGAIN) < AGAIN:
                return
            self._said[plant] = now
        where = address if address == other else f"{other} and {address}"
        self._on_clone(
            f"two devices use the key of {plant} (from {where}), as when a disk was copied: each takes the other's"
            f" work. On the copy run `fedclient leave --forget` and join with a token of its own (`fedserver invite"
            f" NAME`); if nobody made a copy, run `fedserver plants revoke {plant}` and invite the device anew"
        )
