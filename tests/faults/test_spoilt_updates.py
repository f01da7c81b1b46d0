"""What a plant may send: each spoilt answer is refused by name, told to the plant, and never in the model."""

from __future__ import annotations

import pytest
from tiny_parts import TinyFederation, wait_for
from tiny_worker import Behaviour

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("not a number", "is not finite"),
        ("infinite", "is not finite"),
        ("huge", "out of proportion to the head"),
        ("another shape", "made for another head"),
        ("another base model", "trained from another base model"),
        ("a truncated update", "a message is damaged"),
        ("a truncated message", "a message is damaged"),
        ("noise", "a message is damaged"),
        ("a billion pictures", "its number of pictures is impossible"),
        ("an answer of fifty megabytes", "larger than any may be"),
    ],
)
def test_a_spoilt_update_is_refused_with_the_reason_and_the_others_go_on(
    federation: TinyFederation, fault: str, words: str
) -> None:
    since = federation.mark()
    federation.behave("third", Behaviour(fault=fault, once=True))  # three in a row would quarantine it
    refused = federation.wait_for_event("PlantRefused", "third", since=since)
    assert words in refused["reason"], refused
    federation.plant_processes["third"].wait_for(f"headquarters says: {refused['reason'][:40]}")
    federation.wait_for_rounds(2)
    row = next(each for each in federation.run.history() if each.round == refused["round"])
    assert "third" not in [each.plant for each in row.plants if each.weight > 0]
    assert [each.plant for each in row.refused] == ["third"]


def test_a_plant_that_claims_a_million_pictures_throughout_gets_no_weight_of_a_million(
    federation: TinyFederation,
) -> None:
    federation.plant_processes["third"].end()
    federation.behave("third", Behaviour(pictures=500_000))  # of two classes; before it was 12 of each
    federation.plant("third")
    note = "third counts for 72 of the 1000000 pictures that it claims"
    wait_for(lambda: any(note in record.notes for record in federation.records(0)), note)
    record = next(one for one in federation.records(0) if note in one.notes)
    assert {one.plant: one.weight for one in record.plants}["third"] <= 72 / (72 + 24)
    federation.plant_processes["third"].end()


def test_a_plant_refused_three_times_running_is_quarantined_until_an_operator_lets_it_in(
    federation: TinyFederation,
) -> None:
    since = federation.mark()
    federation.behave("third", Behaviour(fault="not a number"))
    quarantined = federation.wait_for_event(
        "PlantRefused", "quarantined until an operator looks", since=since
    )
    assert quarantined["in_a_row"] == 3
    federation.behave("third")
    federation.wait_for_rounds(2)
    assert "third" not in [plant.plant for plant in federation.records(federation.last() - 1)[0].plants]
    row = federation.plants()["third"]
    assert row["state"] == "quarantined" and "is not finite" in row["last refusal"]
    federation.run.quarantine_releases.add("third")
