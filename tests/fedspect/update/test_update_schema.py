from __future__ import annotations

import numpy as np
import pytest

from fedspect.errors import UpdateFormatError
from fedspect.update.schema import MAX_TENSORS, Schema, TensorSpec, is_statistic, version_of

STATE = {"b": np.zeros((2, 3), np.float32), "a": np.ones(4, np.float32), "c": np.float32(2.0).reshape(())}


def test_a_schema_is_sorted_by_name_whatever_the_order_of_the_state() -> None:
    assert Schema.of(STATE).names == ("a", "b", "c")
    assert Schema.of(dict(reversed(list(STATE.items())))) == Schema.of(STATE)


def test_a_schema_counts_values_and_bytes() -> None:
    schema = Schema.of(STATE)
    assert (schema.elements, schema.float32_bytes) == (11, 44)
    assert [spec.rows for spec in schema] == [4, 2, 1]


def test_the_hash_tells_names_and_shapes_apart() -> None:
    hashes = {
        Schema((TensorSpec("a", (2, 3)),)).hash,
        Schema((TensorSpec("a", (3, 2)),)).hash,
        Schema((TensorSpec("a", (6,)),)).hash,
        Schema((TensorSpec("b", (2, 3)),)).hash,
    }
    assert len(hashes) == 4


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert Schema((TensorSpec("a", (2, 3)),)).hash.startswith("9e65a904")


@pytest.mark.parametrize(
    "specs",
    [
        (),
        (TensorSpec("b", (1,)), TensorSpec("a", (1,))),
        (TensorSpec("a", (1,)), TensorSpec("a", (1,))),
        tuple(TensorSpec(f"{number:05d}", (1,)) for number in range(MAX_TENSORS + 1)),
        (TensorSpec("a", (2**20, 2**20)),),
    ],
    ids=["empty", "unsorted", "repeated", "too many", "too large"],
)
def test_an_impossible_schema_is_refused(specs: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(UpdateFormatError):
        Schema(specs)


@pytest.mark.parametrize(("name", "shape"), [("", (1,)), ("n" * 257, (1,)), ("a", (0,)), ("a", (1,) * 9)])
def test_an_impossible_tensor_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UpdateFormatError):
        TensorSpec(name, shape)


def test_checking_a_state_names_what_is_missing_and_what_is_new() -> None:
    with pytest.raises(UpdateFormatError, match="missing a, unexpected z"):
        Schema.of(STATE).check({"b": STATE["b"], "c": STATE["c"], "z": STATE["a"]})


def test_checking_a_state_names_the_tensor_of_another_shape() -> None:
    with pytest.raises(UpdateFormatError, match=r"tensor b in another shape; seen: \(3, 2\)"):
        Schema.of(STATE).check({**STATE, "b": STATE["b"].T})


def test_statistics_can_be_left_out() -> None:
    schema = Schema.of({"n.weight": STATE["a"], "n.running_mean": STATE["a"], "n.running_var": STATE["a"]})
    assert schema.keeping(lambda name: not is_statistic(name)).names == ("n.weight",)


def test_a_version_names_the_content_and_not_the_order() -> None:
    assert version_of(STATE) == version_of(dict(reversed(list(STATE.items()))))
    assert version_of(STATE) != version_of({**STATE, "a": STATE["a"] + 1e-6})
    assert version_of(STATE) != version_of({**STATE, "b": STATE["b"].reshape(3, 2)})


def test_a_version_does_not_depend_on_memory_layout() -> None:
    turned = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert version_of({"a": turned}) == version_of({"a": np.ascontiguousarray(turned)})
