"""Rate limits, concurrency limits and a TTL cache for unauthenticated peers."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar
from urllib.parse import unquote

MOST_REMEMBERED = 10_000  # entries; the oldest give way

V = TypeVar("V")


class RateLimit:
    """Token bucket per address: tries refill with time. ``clock`` counts seconds."""

    def __init__(self, size: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = float(size)
        self._per_second = per_second
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def allow(self, address: str) -> bool:
        """Whether this address may try now; an allowed try counts."""
        with self._lock:
            now = self._clock()
            left, since = self._buckets.pop(address, (self._size, now))
            left = min(self._size, left + (now - since) * self._per_second)
            allowed = left >= 1.0
            self._buckets[address] = (left - 1.0 if allowed else left, now)
            if len(self._buckets) > MOST_REMEMBERED:
                self._buckets.popitem(last=False)
            return allowed


class ConcurrencyLimit:
    """How many of one thing may be under way at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def one(self, whose: str) -> Iterator[bool]:
        """Whether one more is allowed; if so, it counts until the ``with`` block ends."""
        with self._lock:
            allowed = self._counts[whose] < self._most
            self._counts[whose] += allowed
        try:
            yield allowed
        finally:
            with self._lock:
                self._counts[whose] -= allowed
                if not self._counts[whose]:
                    del self._counts[whose]


class TTLCache(Generic[V]):
    """Values under random keys, each for ``life`` seconds, in memory only."""

    def __init__(self, life: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._life = life
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, V]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: bytes, value: V) -> None:
        """Remember ``value``."""
        with self._lock:
            self._entries[key] = (self._clock() + self._life, value)
            if len(self._entries) > MOST_REMEMBERED:
                self._entries.popitem(last=False)

    def get(self, key: bytes) -> V | None:
        """The value, ``None`` when it is unknown or expired."""
        with self._lock:
            until, value = self._entries.get(key, (0.0, None))
            return value if self._clock() < until else None

    def take(self, key: bytes) -> V | None:
        """The value, removed: it can be had once."""
        value = self.get(key)
        with self._lock:
            return value if self._entries.pop(key, None) is not None else None


def address_of(peer: str) -> str:
    """Whose connection it is, from gRPC's "ipv4:192.0.2.7:4711": the port changes with every connection, and an IPv6
    address within its network of 2**64 as one likes.
    """
    place = peer.rpartition(":")[0] or peer
    try:
        address = ipaddress.ip_address(unquote(place.partition(":")[2]).strip("[]"))
    except ValueError:
        return place
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address), 64), strict=False))
        address = address.ipv4_mapped
    return str(address)
