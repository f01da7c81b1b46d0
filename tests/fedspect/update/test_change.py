from __future__ import annotations

import numpy as np
import pytest

from fedspect.errors import UpdateFormatError
from fedspect.update.change import StepSize, apply_change, change_between, sum_of
from update_crafting import change, head


def test_a_change_leads_from_one_head_to_the_other() -> None:
    before, after = head(1), head(2)
    arrived = apply_change(before, change_between(before, after))
    for name in before:
        np.testing.assert_allclose(arrived[name], after[name], rtol=1e-6, atol=1e-6)


def test_a_variance_never_falls_below_zero() -> None:
    state = {"n.running_mean": np.array([1.0], np.float32), "n.running_var": np.array([0.25], np.float32)}
    after = apply_change(
        state, {"n.running_mean": np.array([-2.0], np.float32), "n.running_var": np.array([-0.5], np.float32)}
    )
    assert after["n.running_var"].tolist() == [0.0]
    assert after["n.running_mean"].tolist() == [-1.0]


def test_neither_head_nor_change_is_written_to() -> None:
    before, step = head(1), change(2)
    kept = {name: values.copy() for name, values in before.items()}
    apply_change(before, step)
    sum_of(step, step)
    assert all(np.array_equal(before[name], kept[name]) for name in before)
    assert all(np.array_equal(values, step[name]) for name, values in change(2).items())


def test_a_change_of_other_tensors_is_refused() -> None:
    with pytest.raises(UpdateFormatError, match=r"missing block\.conv\.weight"):
        apply_change(head(), {"classifier.bias": np.zeros(3, np.float32)})
    with pytest.raises(UpdateFormatError):
        change_between(head(), {"classifier.bias": np.zeros(3, np.float32)})
    with pytest.raises(UpdateFormatError):
        sum_of(change(), {"classifier.bias": np.zeros(3, np.float32)})


def test_the_step_is_measured_apart_for_weights_and_statistics() -> None:
    size = StepSize.of(
        {
            "a.weight": np.array([3, 0], np.float32),
            "a.bias": np.array([4], np.float32),
            "a.running_var": np.array([100], np.float32),
        }
    )
    assert (size.weights, size.statistics) == (5.0, 100.0)


def test_a_huge_finite_step_has_a_finite_size() -> None:
    assert StepSize.of({"w": np.full(4, 3e38, np.float32)}).weights == pytest.approx(6e38, rel=1e-6)
