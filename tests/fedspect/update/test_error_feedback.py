from __future__ import annotations

import numpy as np
import pytest

from fedspect.update.encoding import ENCODINGS, decode
from fedspect.update.error_feedback import encode_with_feedback
from fedspect.update.schema import Schema
from update_crafting import change


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_sent_and_owed_together_are_the_change(encoding: str) -> None:
    step = change()
    encoded = encode_with_feedback(step, None, encoding=encoding, density=0.1)
    for name, values in step.items():
        owed = encoded.residual[name] if encoded.residual is not None else 0.0
        np.testing.assert_allclose(encoded.decoded[name] + owed, values, rtol=1e-5, atol=1e-9)


def test_what_is_reported_as_decoded_is_what_the_receiver_reads() -> None:
    step = change()
    encoded = encode_with_feedback(step, None, encoding="sparse-int8", density=0.1)
    read = decode(encoded.blob, Schema.of(step))
    assert all(np.array_equal(encoded.decoded[name], read[name]) for name in step)


def test_a_lossless_encoding_pays_the_debt_and_owes_nothing() -> None:
    step, debt = change(1), change(2)
    encoded = encode_with_feedback(step, debt, encoding="float32")
    assert encoded.residual is None
    assert all(np.array_equal(encoded.decoded[name], step[name] + debt[name]) for name in step)


def _sent_after(rounds: int, *, feedback: bool) -> float:
    """How far off the sum of what was sent is, as a share, when every round takes the same sparse step."""
    step = {"w": change(shapes={"w": (64, 64)})["w"]}
    debt, sent = None, np.zeros((64, 64), np.float32)
    for _ in range(rounds):
        encoded = encode_with_feedback(step, debt, encoding="sparse-int8", density=0.05)
        debt = encoded.residual if feedback else None
        sent += encoded.decoded["w"]
    return float(np.linalg.norm(sent - rounds * step["w"]) / np.linalg.norm(rounds * step["w"]))


def test_small_values_add_up_until_they_are_sent() -> None:
    assert _sent_after(60, feedback=True) < 0.15
    assert _sent_after(60, feedback=False) > 0.5


def test_the_debt_stays_bounded() -> None:
    assert _sent_after(200, feedback=True) < _sent_after(60, feedback=True) / 2
