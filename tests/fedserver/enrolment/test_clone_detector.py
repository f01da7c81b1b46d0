from __future__ import annotations

import pytest
from office_parts import Office, join

from fedclient.node.enrolment import enrol
from fedclient.node.home import PlantHome
from fedserver.enrolment.clone_detector import AGAIN, CloneDetector


class Heard:
    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.detector = CloneDetector(self.said.append, clock=lambda: self.now)

    def starts(self, starts: str, plant: str = "plant-a") -> int:
        """How often a clone was told after calls of these starts, one letter each."""
        for start in starts:
            self.detector.heard(plant, start.encode(), f"192.0.2.{ord(start)}")
        return len(self.said)


@pytest.mark.parametrize("starts", ["aaaa", "aaabbbccc", "abcdefgh", ""])
def test_a_plant_that_is_started_again_and_again_is_one_device(starts: str) -> None:
    assert Heard().starts(starts) == 0


@pytest.mark.parametrize("starts", ["aba", "aabbbba", "abca", "abcab"])
def test_two_devices_that_alternate_are_told_with_both_addresses_and_the_mend(starts: str) -> None:
    heard = Heard()
    assert heard.starts(starts) == 1
    (said,) = heard.said
    assert said.startswith("two devices use the key of plant-a") and "192.0.2.97" in said
    assert "fedclient leave --forget" in said and "fedserver plants revoke plant-a" in said


def test_it_is_said_once_an_hour_and_of_each_plant() -> None:
    heard = Heard()
    assert heard.starts("ababab") == 1
    assert heard.starts("xyx", plant="plant-b") == 2
    heard.now = AGAIN
    assert heard.starts("ab") == 3


def test_calls_of_single_commands_are_no_device() -> None:
    heard = Heard()
    for start in (b"a", b"", b"a", b"", b"a"):
        heard.detector.heard("plant-a", start, "192.0.2.1")
    assert heard.said == []


def test_headquarters_says_that_a_copied_disk_is_in_use(
    office: Office, home: PlantHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership = join(home, office.token())
    with enrol.returned(home, membership) as here:
        here.published()
        with enrol.returned(home, membership, stays=False):  # a command beside the running plant
            here.published()
        monkeypatch.setattr(enrol, "START", b"another device")
        with enrol.returned(home, membership) as there:
            there.published()
            assert office.said == []
            here.published()
    (said,) = office.said
    assert "two devices use the key of plant-a (from 127.0.0.1)" in said
