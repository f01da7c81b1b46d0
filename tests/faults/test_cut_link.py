"""The link to headquarters is cut in a round and restored: by a proxy through which all plants come."""

from __future__ import annotations

import json
from typing import Iterator

import pytest
from link_parts import Proxy
from tiny_parts import TinyFederation, wait_for
from tiny_worker import Behaviour

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PLANTS = ("plant-a", "plant-b")
ELSEWHERE = "127.0.0.2"  # where plants look for headquarters, which listens at 127.0.0.1


class Line:
    """Both ports of headquarters, as plants reach them."""

    def __init__(self, federation: TinyFederation) -> None:
        network = federation.opened.settings().network
        self._proxies = [
            Proxy(port, listen=(ELSEWHERE, port)) for port in (network.fleet_port, network.enrolment_port)
        ]

    def cut(self) -> None:
        for proxy in self._proxies:
            proxy.cut()

    def mend(self) -> None:
        for proxy in self._proxies:
            proxy.mend()

    def close(self) -> None:
        for proxy in self._proxies:
            proxy.close()


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyFederation]:
    made = TinyFederation(tmp_path_factory.mktemp("cut"), hosts=[ELSEWHERE], deadline=60.0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def line(federation: TinyFederation) -> Iterator[Line]:
    made = Line(federation)
    federation.begin(*PLANTS)
    federation.well(PLANTS)
    yield made
    made.close()


def test_answers_wait_while_the_link_is_cut_and_are_used_when_it_is_back(
    federation: TinyFederation, line: Line
) -> None:
    for plant in PLANTS:
        federation.behave(plant, Behaviour(seconds=1.0))
    federation.wait_for_rounds(1)
    since = federation.mark()
    for plant in PLANTS:
        federation.at_work(plant)
    line.cut()
    cut = federation.last() + 1
    for plant in PLANTS:
        federation.plant_processes[plant].wait_for("lost: ")
        wait_for(lambda p=plant: not (federation.home(p) / "at-work").exists(), f"work done at {plant}")  # type: ignore[misc]
    assert federation.last() < cut
    line.mend()
    for plant in PLANTS:
        federation.behave(plant)
    wait_for(lambda: federation.last() >= cut, "the round that was cut")
    record = federation.records(cut - 1)[0]
    assert sorted(one.plant for one in record.plants) == list(PLANTS) and not record.lost
    assert not federation.events("PlantLost", since)
    federation.well(PLANTS)
    federation.check_history()


def test_without_plants_the_run_waits_and_says_so_and_goes_on_when_they_are_back(
    federation: TinyFederation, line: Line
) -> None:
    since = federation.mark()
    line.cut()
    waiting = federation.wait_for_event("Waiting", since=since)  # after two missed heartbeats
    assert waiting["needed"] == 2 and waiting["present"] < 2
    said = json.loads(federation.fedserver("status", "--json").stdout)
    assert said["status"]["state"] == "waiting" and "needs 2" in said["status"]["text"]
    line.mend()
    federation.well(PLANTS)
    federation.check_history()
