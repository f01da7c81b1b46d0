"""Aggregation with numbers worked out by hand: three plants that weigh 1, 2 and 3."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.common import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, MultiKrum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from fedserver.aggregation.aggregate import aggregate
from fedserver.aggregation.aggregator import Aggregator, NoOptions
from fedserver.aggregation.checking import Accepted, Spooled, check_updates
from fedserver.aggregation.registry import build_aggregator, strategy_names
from fedserver.flower.strategies import HeldUpdates
from fedspect.errors import DamagedFileError, FederationError, SettingsError
from fedspect.update.change import StepSize
from fedspect.update.checks import Expected, Step
from fedspect.update.encoding import encode
from fedspect.update.round_messages import RoundReply
from fedspect.update.schema import Arrays, Schema

BASE, VERSION = "ab" * 32, "cd" * 32
HEAD = {
    "weight": np.full((2, 2), 4.0, dtype=np.float32),
    "norm.running_mean": np.zeros(2, dtype=np.float32),
    "norm.running_var": np.ones(2, dtype=np.float32),
}


def change(weight: float, statistic: float = 0.0) -> Arrays:
    return {
        "weight": np.full((2, 2), weight, dtype=np.float32),
        "norm.running_mean": np.full(2, statistic, dtype=np.float32),
        "norm.running_var": np.full(2, -statistic, dtype=np.float32),
    }


def spool(folder: Path, plant: str, update: Arrays, pictures: int = 1, late_by: int = 0) -> Spooled:
    """An answer on disk."""
    expected = Expected(
        plant=plant,
        run_id="run",
        round=1,
        base_hash=BASE,
        version=VERSION,
        schema=Schema.of(update),
        classes=["a", "b"],
    )
    reply = RoundReply(
        plant=plant,
        run_id="run",
        round=1,
        base_hash=BASE,
        version=VERSION,
        num_examples=pictures,
        counts={"a": pictures},
        payload=encode(update, encoding="float32"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{plant}.reply"
    path.write_bytes(reply.to_bytes())
    return Spooled(expected, path, late_by)


def accepted(folder: Path, updates: Sequence[Arrays], weights: Sequence[float] = (1, 2, 3)) -> list[Accepted]:
    return [
        Accepted(
            spool(folder, f"plant-{n}", update, int(weight)),
            Step(f"plant-{n}", StepSize.of(update), int(weight)),
            weight,
        )
        for n, (update, weight) in enumerate(zip(updates, weights, strict=True), start=1)
    ]


def one_round(strategy: Aggregator, updates: Sequence[Accepted], number: int = 1) -> Arrays:
    """What a round of the strategy changes."""
    return dict(aggregate(strategy, number, updates).change)


def values(found: Mapping[str, np.ndarray]) -> tuple[float, float, float]:
    """Each tensor's one value."""
    for each in found.values():
        assert each.dtype == np.float32
        assert np.unique(each).size == 1
    return tuple(float(found[name].flat[0]) for name in HEAD)  # type: ignore[return-value]


THREE = [change(1.0, 0.3), change(2.0, 0.6), change(6.0, 0.9)]


def test_a_claim_of_a_million_pictures_is_no_weight_of_a_million(tmp_path: Path) -> None:
    spooled = [spool(tmp_path, f"plant-{n}", change(0.1), 150) for n in (1, 2, 3)]
    spooled.append(spool(tmp_path, "plant-4", change(0.3), 1_000_000))
    found, refused = check_updates(spooled, HEAD)
    assert not refused and [one.weight for one in found] == [150, 150, 150, 1500]
    aggregated = aggregate(build_aggregator("fedavg"), 1, found)
    assert aggregated.shares["plant-4"] == pytest.approx(10 / 13)
    assert aggregated.notes == ["plant-4 counts for 1500 of the 1000000 pictures that it claims"]


def test_what_a_plant_said_first_bounds_what_it_counts_for_and_its_lateness_discounts_that(
    tmp_path: Path,
) -> None:
    one = spool(tmp_path, "plant-1", change(0.1), 1_000_000, late_by=1)
    grown = dataclasses.replace(one, expected=dataclasses.replace(one.expected, at_first=150))
    [found], _ = check_updates([grown], HEAD, discount=0.5)
    assert (found.weight, found.step.examples, found.claim) == (225.0, 450, 1_000_000)


def test_ordinary_unequal_plants_weigh_what_they_claim(tmp_path: Path) -> None:
    pictures = [520, 61, 240, 390, 229]  # six classes of 240 by a Dirichlet draw with alpha 0.5
    spooled = [spool(tmp_path, f"plant-{n}", change(0.1), number) for n, number in enumerate(pictures)]
    found, _ = check_updates(spooled, HEAD)
    assert [one.weight for one in found] == pictures and not any(one.claim for one in found)


# -- by hand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_the_mean_weighs_1_2_3(tmp_path: Path, name: str) -> None:
    # (1*1 + 2*2 + 3*6) / 6 = 23/6; (1*0.3 + 2*0.6 + 3*0.9) / 6 = 0.7
    found = one_round(build_aggregator(name), accepted(tmp_path, THREE))
    assert values(found) == pytest.approx((23 / 6, 0.7, -0.7), rel=1e-6)


def test_fedadam_steps_the_weights_and_only_averages_the_statistics(tmp_path: Path) -> None:
    strategy = build_aggregator("fedadam", {"eta": 0.1, "beta_1": 0.5, "beta_2": 0.75, "tau": 1.0})
    found = one_round(strategy, accepted(tmp_path, THREE))
    # d = 23/6, m = d/2, v = d*d/4, step = 0.1 * sqrt(1-0.75**2) / (1-0.5**2) * m / (sqrt(v) + 1)
    step = 0.1 * (1 - 0.75**2) ** 0.5 / (1 - 0.5**2) * (23 / 12) / (23 / 12 + 1)
    assert values(found) == pytest.approx((step, 0.7, -0.7), rel=1e-6)


def test_fedyogi_steps_the_weights_and_only_averages_the_statistics(tmp_path: Path) -> None:
    strategy = build_aggregator("fedyogi", {"eta": 0.1, "beta_1": 0.5, "beta_2": 0.75, "tau": 1.0})
    found = one_round(strategy, accepted(tmp_path, THREE))
    # v = 0 - 0.25 * d*d * sign(0 - d*d) = d*d/4
    assert values(found) == pytest.approx((0.1 * (23 / 12) / (23 / 12 + 1), 0.7, -0.7), rel=1e-6)


def test_fedavgm_carries_half_of_the_last_round_on(tmp_path: Path) -> None:
    strategy = build_aggregator("fedavgm", {"server_momentum": 0.5, "server_learning_rate": 1.0})
    first = one_round(strategy, accepted(tmp_path, THREE), 1)
    second = one_round(strategy, accepted(tmp_path, THREE), 2)
    assert values(first) == pytest.approx((23 / 6, 0.7, -0.7), rel=1e-6)
    assert values(second) == pytest.approx((23 / 6 * 1.5, 0.7, -0.7), rel=1e-6)


def test_the_median_takes_the_middle_of_every_value(tmp_path: Path) -> None:
    found = one_round(build_aggregator("fedmedian"), accepted(tmp_path, THREE))
    assert values(found) == pytest.approx((2.0, 0.6, -0.6), rel=1e-6)


def test_the_trimmed_mean_cuts_one_of_three_at_each_end(tmp_path: Path) -> None:
    found = one_round(build_aggregator("trimmed", {"beta": 0.34}), accepted(tmp_path, THREE))
    assert values(found) == pytest.approx((2.0, 0.6, -0.6), rel=1e-6)


def test_krum_takes_weights_and_statistics_of_one_plant(tmp_path: Path) -> None:
    # of 1, 2 and 6 the first two lie nearest to a neighbour; plant 1 comes first
    strategy = build_aggregator("krum", {"malicious_plants": 0})
    updates = accepted(tmp_path, THREE)
    found = aggregate(strategy, 1, updates)
    assert values(found.change) == pytest.approx((1.0, 0.3, -0.3), rel=1e-6)
    assert found.shares == {"plant-1": 1.0, "plant-2": 0.0, "plant-3": 0.0}
    assert "Krum took the update of plant-1" in found.notes


def test_krum_chooses_by_small_distances_whatever_the_size_of_the_statistics(tmp_path: Path) -> None:
    near = [change(1.0, 500.0), change(1.001, -500.0), change(9.0, 499.0), change(1.0005, 0.0)]
    found = aggregate(build_aggregator("krum"), 1, accepted(tmp_path, near, (1, 1, 1, 1)))
    assert found.shares["plant-3"] == 0.0


def test_robust_rules_say_what_they_hold_in_memory(tmp_path: Path) -> None:
    found = aggregate(build_aggregator("trimmed", {"beta": 0.4}), 1, accepted(tmp_path, THREE))
    assert found.notes[0].startswith("FedTrimmedAvg held 3 updates in memory at once")
    assert found.notes[1] == "cut the 1 largest and 1 smallest of 3 values everywhere"
    assert aggregate(build_aggregator("fedavg"), 1, accepted(tmp_path, THREE)).notes == []


class TwoNearest(HeldUpdates):
    def make(self) -> MultiKrum:
        return MultiKrum(num_nodes_to_select=2)


def test_a_strategy_of_flowers_that_has_no_name_here_works_too(tmp_path: Path) -> None:
    found = one_round(
        TwoNearest(NoOptions()), accepted(tmp_path, [change(1.0), change(1.0), change(9.0)], (1, 1, 1))
    )
    assert values(found) == pytest.approx((1.0, 0.0, 0.0))


# -- what must hold for any numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("name", strategy_names())
def test_the_order_of_the_updates_changes_no_bit(tmp_path: Path, name: str) -> None:
    draw = np.random.default_rng(4)
    updates = [
        {key: draw.normal(size=one.shape).astype(np.float32) for key, one in HEAD.items()} for _ in range(4)
    ]
    ready = accepted(tmp_path, updates, (5, 1, 7, 2))
    found = [
        one_round(build_aggregator(name), order)
        for order in itertools.islice(itertools.permutations(ready), 6)
    ]
    for other in found[1:]:
        assert all(np.array_equal(found[0][key], other[key]) for key in HEAD)


def flowers(update: np.ndarray, weight: float) -> Message:
    content = {
        "arrays": ArrayRecord({"weight": Array(update)}),
        "metrics": MetricRecord({"num-examples": weight}),
    }
    return Message(RecordDict(content), dst_node_id=1, message_type="train")


@given(
    updates=some.arrays(np.float32, (5, 6), elements=st.floats(-100, 100, width=32)),
    weights=st.lists(st.integers(1, 10_000), min_size=5, max_size=5),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_running_mean_is_flowers_mean_of_two_again_and_again_and_nearly_that_of_all_at_once(
    tmp_path: Path, updates: np.ndarray, weights: list[int]
) -> None:
    ready = accepted(tmp_path, [{"weight": row} for row in updates], weights)
    found = aggregate(build_aggregator("fedavg"), 1, ready).change["weight"]
    mean, total = updates[0].astype(np.float64), float(weights[0])
    for row, weight in zip(updates[1:], weights[1:], strict=True):
        step, _ = FedAvg().aggregate_train(1, [flowers(mean, total), flowers(row.astype(np.float64), weight)])
        assert step is not None
        mean, total = step["weight"].numpy(), total + weight
    np.testing.assert_array_equal(found, mean.astype(np.float32))
    replies = [flowers(row.astype(np.float64), weight) for row, weight in zip(updates, weights, strict=True)]
    whole, _ = FedAvg().aggregate_train(1, replies)
    assert whole is not None
    np.testing.assert_allclose(found, whole["weight"].numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedavgm"])
def test_a_strategy_restored_from_its_state_goes_on_to_the_same_bits(tmp_path: Path, name: str) -> None:
    whole, first = build_aggregator(name), build_aggregator(name)
    draw = np.random.default_rng(9)
    rounds = [[change(*draw.normal(size=2)) for _ in range(3)] for _ in range(4)]
    for number in (1, 2):
        one_round(whole, accepted(tmp_path, rounds[number]), number)
        one_round(first, accepted(tmp_path, rounds[number]), number)
    second = build_aggregator(name)
    second.load_state_dict(first.state_dict())
    expected = one_round(whole, accepted(tmp_path, rounds[3]), 3)
    found = one_round(second, accepted(tmp_path, rounds[3]), 3)
    assert all(np.array_equal(found[key], expected[key]) for key in HEAD)


def test_the_memory_of_a_mean_does_not_grow_with_the_number_of_plants(tmp_path: Path) -> None:
    peaks = []
    for count in (4, 40):
        update = {"weight": np.ones((100, 1000), dtype=np.float32)}
        ready = accepted(tmp_path, [update] * count, [1.0] * count)
        tracemalloc.start()
        aggregate(build_aggregator("fedavg"), 1, ready)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


# -- names, options and states that are wrong ----------------------------------------------------------------


def test_an_unknown_strategy_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean fedadam"):
        build_aggregator("fedadamm")


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="beta_1"):
        build_aggregator("fedadam", {"beta1": 0.9})


def test_the_state_of_another_strategy_is_not_taken() -> None:
    with pytest.raises(DamagedFileError, match="does not fit"):
        build_aggregator("fedadam").load_state_dict({"momentum/weight": np.zeros(2)})
    with pytest.raises(DamagedFileError, match="does not fit"):
        build_aggregator("fedavg").load_state_dict({"m/weight": np.zeros(2)})


def test_a_strategy_whose_step_overflows_ends_in_words(tmp_path: Path) -> None:
    strategy = build_aggregator("fedavgm", {"server_learning_rate": 10.0})
    with pytest.raises(FederationError, match="not finite"), np.errstate(over="ignore"):
        one_round(strategy, accepted(tmp_path, [change(1e38)], [1]))


# -- what is let in ------------------------------------------------------------------------------------------


def test_a_late_update_weighs_less_for_each_round_that_it_is_late(tmp_path: Path) -> None:
    ready = [
        spool(tmp_path, "plant-1", change(1.0), 8),
        spool(tmp_path, "plant-2", change(1.0), 8, late_by=2),
    ]
    found, refused = check_updates(ready, HEAD, discount=0.5)
    assert not refused
    assert {one.spooled.plant: one.weight for one in found} == {"plant-1": 8.0, "plant-2": 2.0}


def test_a_file_that_was_cut_short_is_refused_by_name(tmp_path: Path) -> None:
    ready = [spool(tmp_path, f"plant-{n}", change(1.0)) for n in (1, 2)]
    ready[1].path.write_bytes(ready[1].path.read_bytes()[:-7])
    found, refused = check_updates(ready, HEAD)
    assert [one.spooled.plant for one in found] == ["plant-1"]
    assert list(refused) == ["plant-2"]


def test_a_step_far_longer_than_the_others_is_refused(tmp_path: Path) -> None:
    ready = [spool(tmp_path, f"plant-{n}", change(0.01 * n)) for n in (1, 2, 3, 4)]
    ready.append(spool(tmp_path, "plant-5", change(3.0)))
    found, refused = check_updates(ready, HEAD)
    assert len(found) == 4
    assert "far longer" in str(refused["plant-5"])


def test_a_plant_that_claims_a_billion_pictures_is_refused(tmp_path: Path) -> None:
    ready = [spool(tmp_path, "plant-1", change(1.0), 10), spool(tmp_path, "plant-2", change(1.0), 10**9)]
    _, refused = check_updates(ready, HEAD)
    assert "impossible" in str(refused["plant-2"])
