from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List

import numpy as np
import pytest

from fedspect.errors import UpdateRefusedError
from fedspect.update.change import StepSize
from fedspect.update.checks import (
    CheckSettings,
    Expected,
    Step,
    cap_by_enrolment,
    cap_by_median,
    check_reply,
    check_step,
    step_outliers,
)
from fedspect.update.encoding import encode
from fedspect.update.round_messages import ReplyError, RoundReply
from fedspect.update.schema import Schema
from update_crafting import change, head, resealed, with_value

BASE, VERSION = "a" * 64, "b" * 64
SCHEMA = Schema.of(change())
EXPECTED = Expected(
    plant="plant-1",
    run_id="run-1",
    round=2,
    base_hash=BASE,
    version=VERSION,
    schema=SCHEMA,
    classes=("scratch", "pit"),
    enrolled={"scratch": 10, "pit": 20},
)


def reply(**fields: Any) -> RoundReply:
    given: Dict[str, Any] = {
        "plant": "plant-1",
        "run_id": "run-1",
        "round": 2,
        "base_hash": BASE,
        "version": VERSION,
        "num_examples": 30,
        "counts": {"scratch": 10, "pit": 20},
        "payload": encode(change(), encoding="int8"),
    }
    return RoundReply(**{**given, **fields})


def test_a_sound_update_is_decoded_ready_to_be_averaged() -> None:
    accepted = check_reply(reply(payload=encode(change(), encoding="float32")), EXPECTED)
    assert all(np.array_equal(accepted[name], values) for name, values in change().items())
    assert all(
        values.dtype == np.float32 and values.shape == change()[name].shape
        for name, values in accepted.items()
    )


@pytest.mark.parametrize(
    ("fields", "reason", "seen"),
    [
        ({"plant": "plant-2"}, "another plant's name", "plant-2"),
        ({"run_id": "run-2"}, "another run", "run-2"),
        ({"round": 1}, "another round", "1"),
        ({"base_hash": "d" * 64}, "another base model", "d" * 12),
        ({"version": "d" * 64}, "another version", "d" * 12),
        ({"payload": b""}, "holds no change", None),
        ({"num_examples": 10**9, "counts": {"pit": 10**9}}, "number of pictures is impossible", "1000000000"),
        ({"num_examples": 0, "counts": {}}, "number of pictures is impossible", "0"),
        ({"num_examples": 91, "counts": {"pit": 91}}, "far more pictures than it had", "91"),
        ({"counts": {"scratch": 10, "dent": 20}}, "unknown class", "dent"),
        ({"counts": {"scratch": 10}}, "do not add up", "10 by class"),
        ({"payload": with_value(SCHEMA, float("nan"))}, "is not finite", "1 values, first nan"),
        ({"payload": with_value(SCHEMA, float("-inf"))}, "is not finite", "1 values, first -inf"),
        ({"payload": encode(change(), encoding="int8")[:-1]}, "its length is another", None),
        ({"payload": resealed(encode(change(), encoding="int8")[:-1])}, "a message is damaged", None),
        ({"payload": encode(head(), encoding="int8")[:40]}, "is not an update", None),
        ({"payload": encode({"w": np.ones((2, 2), np.float32)})}, "another head", None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_unsound_update_is_refused_with_plant_reason_and_value(
    fields: Dict[str, Any], reason: str, seen: str | None
) -> None:
    with pytest.raises(UpdateRefusedError) as caught:
        check_reply(reply(**fields), EXPECTED)
    assert caught.value.what.startswith("the update of plant-1 is refused: ")
    assert reason in caught.value.what
    if seen is not None:
        assert str(caught.value.seen) == seen


def test_an_error_instead_of_an_update_is_quoted() -> None:
    with pytest.raises(UpdateRefusedError, match="holds no change; seen: disk full"):
        check_reply(reply(payload=b"", error=ReplyError(kind="E", message="disk full")), EXPECTED)


def test_a_plant_may_have_gained_pictures_since_it_described_itself() -> None:
    assert check_reply(reply(num_examples=90, counts={"pit": 90}), EXPECTED)


def test_the_limit_of_pictures_is_a_setting() -> None:
    with pytest.raises(UpdateRefusedError, match="accepted: 1 to 29"):
        check_reply(reply(), EXPECTED, CheckSettings(max_pictures=29))


def steps(*weights: float, examples: List[int] | None = None, statistics: float = 1.0) -> List[Step]:
    return [
        Step(f"plant-{number}", StepSize(size, statistics), examples[number - 1] if examples else 100)
        for number, size in enumerate(weights, 1)
    ]


def test_steps_of_one_kind_all_pass() -> None:
    assert step_outliers(steps(1.0, 1.3, 0.8, 1.1, 2.0)) == {}


def test_the_limit_is_median_and_deviations_worked_out_by_hand() -> None:
    # Median 2, deviations 1, 1, 0, 1, 9 -> MAD 1; the limit 2 + 6 * 1.4826 = 10.896 beats 5 * 2 = 10.
    assert step_outliers(steps(1, 1, 2, 3, 10.8)) == {}
    refused = step_outliers(steps(1, 1, 2, 3, 11.0))
    assert list(refused) == ["plant-5"]
    assert "plant-5 is refused: its step is far longer than the others'" in refused["plant-5"].what
    assert refused["plant-5"].seen == "1.1"  # 11 / root of 100 pictures
    assert refused["plant-5"].accepted == "at most 1.09, the median being 0.2"


def test_equal_steps_do_not_make_a_slightly_longer_one_an_outlier() -> None:
    assert step_outliers(steps(1, 1, 1, 1, 1, 4.9)) == {}
    assert list(step_outliers(steps(1, 1, 1, 1, 1, 5.1))) == ["plant-6"]


def test_two_plants_of_which_one_exploded() -> None:
    assert list(step_outliers(steps(1.0, 1000.0))) == ["plant-2"]
    assert list(step_outliers(steps(1000.0, 1.0, 1.2))) == ["plant-1"]


def test_two_plants_that_merely_differ_pass() -> None:
    assert step_outliers(steps(1.0, 15.0)) == {}


def test_a_large_plant_among_small_ones_passes_because_it_takes_more_steps() -> None:
    assert step_outliers(steps(0.1, 0.1, 0.12, 1.0, examples=[5, 5, 5, 500])) == {}
    assert list(step_outliers(steps(0.1, 0.1, 0.12, 1.0, examples=[5, 5, 5, 5]))) == ["plant-4"]


def test_a_claim_of_a_million_pictures_does_not_excuse_a_long_step() -> None:
    honest = [150, 150, 150]
    refused = step_outliers(steps(1.0, 1.0, 1.0, 30.0, examples=[*honest, 1_000_000]))
    assert list(refused) == ["plant-4"]
    assert refused["plant-4"].seen == "0.7746"  # 30 / root of 10 times 150
    earlier = steps(1.0, 1.0, 1.0, examples=honest)
    alone = [Step("plant-4", StepSize(30.0, 1.0), 1_000_000)]
    assert list(step_outliers(alone, earlier=earlier)) == ["plant-4"]


def test_a_plant_counts_for_a_bounded_number_of_the_others_pictures() -> None:
    claimed = steps(1.0, 1.0, 1.0, 1.0, examples=[100, 120, 200, 1_000_000])
    assert [step.examples for step in cap_by_median(claimed)] == [100, 120, 200, 1200]
    assert [step.examples for step in cap_by_median(claimed, settings=CheckSettings(of_others=2.0))] == [
        100, 120, 200, 240,
    ]  # fmt: skip


def test_who_is_alone_counts_for_what_it_claims() -> None:
    alone = steps(1.0, examples=[1_000_000])
    assert cap_by_median(alone) == alone
    assert cap_by_median(alone, earlier=alone) == alone  # its own rounds before are no others


def test_a_plant_counts_for_three_times_what_it_first_had_at_most() -> None:
    assert cap_by_enrolment(90, replace(EXPECTED, at_first=30)) == 90
    assert cap_by_enrolment(91, replace(EXPECTED, at_first=30)) == 90
    assert cap_by_enrolment(1_000_000, EXPECTED) == 1_000_000


def test_a_plant_alone_is_compared_with_the_rounds_before() -> None:
    assert step_outliers(steps(1000.0)) == {}
    earlier = steps(1.0, 1.1, 0.9, 1.2)
    assert list(step_outliers(steps(1000.0), earlier=earlier)) == ["plant-1"]
    assert step_outliers(steps(1.3), earlier=earlier) == {}


def test_no_step_at_all_is_nothing_to_compare_with() -> None:
    assert step_outliers([]) == {}
    assert step_outliers(steps(0.0, 0.0, 0.0, 0.0, 1.0)) == {}


def test_wild_statistics_are_refused_although_the_weights_are_usual() -> None:
    wild = [*steps(1.0, 1.0, 1.0, 1.0), Step("plant-9", StepSize(1.0, 1e6), 100)]
    refused = step_outliers(wild)
    assert list(refused) == ["plant-9"]
    assert "running statistics move" in refused["plant-9"].what


def test_a_step_longer_than_the_head_could_need_is_refused_alone() -> None:
    size = StepSize.of(head())
    check_step(Step("plant-1", StepSize(size.weights, size.statistics), 10), size)
    with pytest.raises(UpdateRefusedError, match=r"plant-1 is refused: its step is out of proportion"):
        check_step(Step("plant-1", StepSize(11 * size.weights, 0.0), 10), size)
    with pytest.raises(UpdateRefusedError, match="step of the statistics"):
        check_step(Step("plant-1", StepSize(0.0, 2000 * size.statistics), 10), size)


def test_fedbn_without_statistics_has_none_to_be_out_of_proportion() -> None:
    check_step(Step("plant-1", StepSize(1.0, 0.0), 10), StepSize(1.0, 0.0))
