from __future__ import annotations

import pytest

from fedserver.enrolment import rate_limits as limits
from fedserver.enrolment.rate_limits import RateLimit, TTLCache, address_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_address_may_try_at_once_up_to_the_size_and_then_at_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(3, 0.5, clock)
    assert [limit.allow("a") for _ in range(5)] == [True, True, True, False, False]
    clock.now = 2.0
    assert [limit.allow("a") for _ in range(2)] == [True, False]
    clock.now = 1000.0
    assert [limit.allow("a") for _ in range(4)] == [True, True, True, False]


def test_one_address_does_not_use_up_anothers_tries() -> None:
    limit = RateLimit(1, 0.0, Clock())
    assert limit.allow("a") and not limit.allow("a")
    assert limit.allow("b")


def test_many_addresses_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_REMEMBERED", 10)
    limit, memory = RateLimit(1, 0.0, Clock()), TTLCache[int](1.0, Clock())
    for number in range(100):
        limit.allow(str(number))
        memory.put(bytes([number]), number)
    assert len(limit._buckets) == len(memory._entries) == 10
    assert memory.get(bytes([99])) == 99 and memory.get(bytes([1])) is None


def test_what_is_remembered_is_forgotten_in_time_and_taken_once() -> None:
    clock = Clock()
    memory: TTLCache[str] = TTLCache(60.0, clock)
    memory.put(b"k", "v")
    assert memory.get(b"k") == "v" and memory.take(b"k") == "v"
    assert memory.take(b"k") is None
    memory.put(b"k", "v")
    clock.now = 60.0
    assert memory.get(b"k") is None and memory.take(b"k") is None


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:4711", "192.0.2.7"),
        ("ipv6:%5B2001:db8:0:1::1%5D:99", "2001:db8:0:1::/64"),
        ("ipv6:%5B2001:db8:0:1:ffff::2%5D:98", "2001:db8:0:1::/64"),
        ("ipv6:%5B2001:db8:0:2::1%5D:99", "2001:db8:0:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:99", "fe80::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:99", "192.0.2.7"),
        ("unix:", "unix"),
    ],
)
def test_neither_the_port_nor_a_place_in_ones_own_network_counts_as_another_address(
    peer: str, address: str
) -> None:
    assert address_of(peer) == address
