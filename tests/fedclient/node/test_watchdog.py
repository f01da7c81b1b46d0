from __future__ import annotations

import threading
import time

from fedclient.node.watchdog import Watchdog


def test_it_bites_once_when_nothing_is_heard() -> None:
    bites: list[float] = []
    bitten = threading.Event()

    def bite() -> None:
        bites.append(time.monotonic())
        bitten.set()

    with Watchdog(0.05, bite) as watchdog:
        assert bitten.wait(30.0)
        watchdog.heard()
    assert len(bites) == 1


def test_it_does_not_bite_while_something_is_heard_nor_when_it_is_over() -> None:
    bites: list[str] = []
    with Watchdog(60.0, lambda: bites.append("bitten")) as watchdog:
        for _ in range(1000):
            watchdog.heard()
    assert not watchdog._thread.is_alive() and not bites


def test_what_comes_between_its_two_looks_is_heard() -> None:
    """As after a time in which this whole process stood still: the first wait is over at once."""
    bites: list[str] = []
    watchdog = Watchdog(60.0, lambda: bites.append("bitten"))
    first_wait_over = threading.Event()
    wait = watchdog._heard.wait

    def waiting(seconds: float) -> bool:
        if not first_wait_over.is_set():
            first_wait_over.set()
            return False
        return wait(seconds)

    watchdog._heard.wait = waiting  # type: ignore[method-assign,assignment]
    with watchdog:
        assert first_wait_over.wait(30.0)
        watchdog.heard()
    assert not bites
