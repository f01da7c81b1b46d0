"""Memory budget for pictures of requests: how large one may be, and how much is decoded at the same time.

A file of some kilobytes may hold a picture of gigabytes, and each of many clients may send one.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Iterator

from fedclient.worker.line.serving.model_leases import BusyError
from fedspect.data.decode import TooLargePictureError

BYTES_PER_PIXEL = 12  # while a picture is decoded and made small: Pillow's four, its copies, the array
BYTES_PER_DEEP_PIXEL = 36  # of 16 bits per channel: two decodings, and their values together
LONGEST_WAIT = 30.0  # seconds for room


class MemoryBudget:
    """Shared by all requests of a process; a picture waits until the budget allows it. What finds no room
    waits for it.
    """

    def __init__(self, largest_megapixels: float, together_mib: int) -> None:
        self.largest = int(largest_megapixels * 1_000_000)
        self._all = self._free = together_mib << 20
        self._condition = threading.Condition()

    @contextmanager
    def taken(self, width: int, height: int, label: str, *, deep: bool = False) -> Iterator[None]:
        """Room for one picture, ``deep`` with more than 8 bits per channel; one that needs all of it is alone.

        Raises:
            TooLargePictureError: it has more pixels than a picture may have.
            BusyError: no room came free in time.

        """
        self.check(width, height, label)
        each = BYTES_PER_DEEP_PIXEL if deep else BYTES_PER_PIXEL
        wanted = min(width * height * each, self._all)
        with self._condition:
            if not self._condition.wait_for(lambda: self._free >= wanted, LONGEST_WAIT):
                raise BusyError("no room came free to unpack a picture", remedy="ask again in a moment")
            self._free -= wanted
        try:
            yield
        finally:
            with self._condition:
                self._free += wanted
                self._condition.notify_all()

    def check(self, width: int, height: int, label: str) -> None:
        """Whether a picture may be as large; raises ``TooLargePictureError``."""
        if width * height > self.largest:
            raise TooLargePictureError(
                "a picture has too many pixels for the line",
                seen=f"{label}: {width} x {height}",
                accepted=f"up to {self.largest / 1e6:g} million pixels",
                remedy="send a smaller one, or raise [serving] largest_megapixels in line.toml",
            )
