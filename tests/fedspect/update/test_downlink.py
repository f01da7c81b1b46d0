from __future__ import annotations

import struct
from typing import Dict, Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedspect.errors import UpdateFormatError, UpdateRefusedError
from fedspect.update.change import apply_change
from fedspect.update.downlink import MAX_CHAIN, ServedModelState, pack_chain, receive_head, unpack_chain
from fedspect.update.encoding import ENCODINGS, encode
from fedspect.update.schema import Schema, version_of
from update_crafting import change, head, with_value

Arrays = Dict[str, np.ndarray]
SCHEMA = Schema.of(head())


def received(served: ServedModelState, holds: Optional[str], held: Optional[Arrays]) -> Arrays:
    kind, payload = served.payload_for(holds)
    return receive_head(kind, payload, version=served.version, schema=SCHEMA, held=held)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_both_sides_hold_the_same_bits_after_many_rounds(encoding: str) -> None:
    served = ServedModelState.start(head())
    held, holds = received(served, None, None), served.version
    for number in range(20):
        target = apply_change(served.head, change(number))
        served = served.advance(target, encoding=encoding, density=0.1)
        held, holds = received(served, holds, held), served.version
        assert all(np.array_equal(held[name], served.head[name]) for name in held)


@pytest.mark.parametrize("encoding", ["float16", "int8", "int3", "sparse-int8"])
def test_what_is_served_does_not_drift_from_what_was_aggregated(encoding: str) -> None:
    served, exact = ServedModelState.start(head()), head()
    for number in range(40):
        step = change(number)
        exact = apply_change(exact, step)
        served = served.advance(apply_change(served.head, step), encoding=encoding, density=0.25)
    assert served.residual is not None
    for name in exact:
        if not name.endswith("running_var"):
            np.testing.assert_allclose(served.head[name] + served.residual[name], exact[name], atol=2e-4)


def test_float32_serves_exactly_what_was_aggregated_as_whole_heads() -> None:
    served = ServedModelState.start(head(1)).advance(head(2), encoding="float32")
    assert served.version == version_of(head(2))
    assert served.payload_for(version_of(head(1)))[0] == "full"


def test_a_plant_that_holds_the_version_is_sent_nothing() -> None:
    served = ServedModelState.start(head())
    assert served.payload_for(served.version) == ("none", b"")
    again = receive_head("none", b"", version=served.version, schema=SCHEMA, held=served.head)
    assert version_of(again) == served.version


def test_a_plant_that_holds_none_or_another_version_is_sent_the_whole_head() -> None:
    served = ServedModelState.start(head(1)).advance(head(2), encoding="int8")
    for holds in (None, "f" * 64):
        kind, payload = served.payload_for(holds)
        assert kind == "full"
        assert (
            version_of(receive_head(kind, payload, version=served.version, schema=SCHEMA)) == served.version
        )


def _after(rounds: int, encoding: str = "sparse-int8", density: float = 0.01) -> ServedModelState:
    served = ServedModelState.start(head())
    for number in range(rounds):
        served = served.advance(apply_change(served.head, change(number)), encoding=encoding, density=density)
    return served


def test_a_plant_that_missed_rounds_is_sent_the_chain_of_changes() -> None:
    start, served = ServedModelState.start(head()), _after(3)
    kind, payload = served.payload_for(start.version)
    assert kind == "change"
    assert len(unpack_chain(payload, SCHEMA)) == 3
    assert version_of(received(served, start.version, start.head)) == served.version


def test_a_chain_heavier_than_the_head_is_replaced_by_the_head() -> None:
    assert _after(6, encoding="float16").payload_for(ServedModelState.start(head()).version)[0] == "full"
    assert _after(1, encoding="float16").payload_for(ServedModelState.start(head()).version)[0] == "change"


def test_chains_are_bounded() -> None:
    assert len(_after(MAX_CHAIN + 5).links) == MAX_CHAIN


def test_without_links_every_plant_is_sent_the_whole_head() -> None:
    served = _after(1)
    assert served.without_links().payload_for(ServedModelState.start(head()).version)[0] == "full"
    assert served.without_links().version == served.version


def test_a_change_against_another_head_than_the_plant_holds_is_refused() -> None:
    kind, payload = _after(1).payload_for(ServedModelState.start(head()).version)
    with pytest.raises(UpdateRefusedError, match="not the one that was announced"):
        receive_head(kind, payload, version=_after(1).version, schema=SCHEMA, held=head(9))
    with pytest.raises(UpdateRefusedError, match="does not hold"):
        receive_head(kind, payload, version=_after(1).version, schema=SCHEMA, held=None)


def test_nothing_sent_to_a_plant_that_holds_something_else_is_refused() -> None:
    with pytest.raises(UpdateRefusedError, match="not the one that was announced"):
        receive_head("none", b"", version="f" * 64, schema=SCHEMA, held=head())


def test_a_head_that_is_not_finite_is_refused_whatever_its_name() -> None:
    blob = with_value(SCHEMA, float("nan"))
    values = np.zeros(SCHEMA.elements, np.float32)
    values[SCHEMA.elements // 2] = np.nan
    forged, offset = {}, 0
    for spec in SCHEMA:
        forged[spec.name] = values[offset : offset + spec.elements].reshape(spec.shape)
        offset += spec.elements
    with pytest.raises(UpdateRefusedError, match="not finite"):
        receive_head("full", blob, version=version_of(forged), schema=SCHEMA)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"\x01",
        bytes([MAX_CHAIN + 1]),
        b"\x01" + struct.pack("<I", 2**32 - 1),
        b"\x01" + struct.pack("<I", 5) + b"1234",
        pack_chain([b"x"]) + b"more",
        pack_chain([b"not a message"]),
        pack_chain([encode({"w": np.ones(2, np.float32)}, encoding="float32")]),
    ],
    ids=["empty", "none", "no length", "too many", "huge", "short", "long", "garbage", "another head"],
)
def test_a_damaged_chain_is_a_format_error(payload: bytes) -> None:
    with pytest.raises(UpdateFormatError):
        receive_head("change", payload, version="f" * 64, schema=SCHEMA, held=head())


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_as_a_chain_are_a_format_error(payload: bytes) -> None:
    with pytest.raises(UpdateFormatError):
        receive_head("change", payload, version="f" * 64, schema=SCHEMA, held=head())
