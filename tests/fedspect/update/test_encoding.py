from __future__ import annotations

import struct
import zlib
from typing import Dict

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedspect.errors import SettingsError, UpdateFormatError, UpdateRefusedError
from fedspect.update.encoding import (
    CHECKSUM,
    DEFAULT_ENCODING,
    ENCODINGS,
    HEADER,
    decode,
    encode,
    encoding_of,
    largest_message,
    seal,
)
from fedspect.update.schema import Schema
from fedspect.update.sparse import AT_LEAST
from update_crafting import SHAPES, change, changes, densities, encodings, resealed

Arrays = Dict[str, np.ndarray]
BODY = HEADER.size + CHECKSUM.size


@settings(deadline=None)
@given(changes(), encodings, densities)
def test_what_comes_back_has_the_same_names_shapes_and_type(
    state: Arrays, encoding: str, density: float
) -> None:
    blob = encode(state, encoding=encoding, density=density)
    back = decode(blob, Schema.of(state))
    assert {name: values.shape for name, values in back.items()} == {n: v.shape for n, v in state.items()}
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in back.values())
    assert encoding_of(blob) == encoding
    assert len(blob) <= largest_message(Schema.of(state))


@settings(deadline=None)
@given(changes())
def test_float32_loses_nothing(state: Arrays) -> None:
    back = decode(encode(state, encoding="float32"), Schema.of(state))
    assert all(np.array_equal(back[name], state[name]) for name in state)


@settings(deadline=None)
@given(changes())
def test_float16_errs_by_a_relative_part_of_each_value_and_never_overflows(state: Arrays) -> None:
    back = decode(encode(state, encoding="float16"), Schema.of(state))
    for name, values in state.items():
        scale = 2 * np.max(np.abs(values))
        assert np.all(np.abs(back[name] - values) <= np.abs(values) * 2.0**-11 + scale * 2.0**-24)


@settings(deadline=None)
@given(changes(), st.sampled_from([("int8", 127), ("int3", 3)]))
def test_whole_numbers_err_by_half_a_step_of_their_channel(state: Arrays, form: tuple[str, int]) -> None:
    encoding, levels = form
    back = decode(encode(state, encoding=encoding), Schema.of(state))
    for name, values in state.items():
        if values.ndim > 1:
            rows, restored = values.reshape(len(values), -1), back[name].reshape(len(values), -1)
            steps = np.max(np.abs(rows), axis=1, keepdims=True) / levels
            assert np.all(np.abs(restored - rows) <= steps * 0.5001)


@settings(deadline=None)
@given(changes(), densities)
def test_sparse_keeps_the_largest_values_of_each_tensor(state: Arrays, density: float) -> None:
    back = decode(encode(state, encoding="sparse-int8", density=density), Schema.of(state))
    for name, values in state.items():
        if values.ndim < 2:
            continue
        kept, magnitudes = back[name].ravel() != 0, np.abs(values).ravel()
        quota = min(values.size, max(int(np.ceil(density * values.size)), AT_LEAST))
        assert np.count_nonzero(kept) <= quota
        # A value of less than half a step is kept as zero, so compare beyond one step.
        step = magnitudes.max() / 127
        largest = np.sort(magnitudes)[::-1][:quota]
        assert np.all(kept[magnitudes > largest[-1] + step])
        assert np.all(np.abs(back[name].ravel() - values.ravel())[kept] <= step * 0.5001)


def test_sparse_keeps_the_share_that_was_asked_for() -> None:
    state = {"w": np.random.default_rng(0).standard_normal((100, 100)).astype(np.float32)}
    for density in (0.01, 0.1, 0.5, 1.0):
        back = decode(encode(state, encoding="sparse-int8", density=density), Schema.of(state))["w"]
        assert 0.9 * density <= np.count_nonzero(back) / back.size <= density


def test_one_dimension_travels_whole_in_every_encoding() -> None:
    state = change()
    for encoding in ENCODINGS:
        back = decode(encode(state, encoding=encoding, density=0.01), Schema.of(state))
        for name in ("block.norm.bias", "block.norm.running_mean", "block.norm.running_var", "scale"):
            np.testing.assert_allclose(back[name], state[name], rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_change_of_nothing_comes_back_as_nothing(encoding: str) -> None:
    state = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    back = decode(encode(state, encoding=encoding), Schema.of(state))
    assert all(not values.any() for values in back.values())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_change_has_one_message(encoding: str) -> None:
    assert encode(change(), encoding=encoding) == encode(change(), encoding=encoding)


def test_coarser_encodings_are_smaller() -> None:
    state = {"w": change(shapes={"w": (256, 256)})["w"]}
    sizes = {name: len(encode(state, encoding=name)) for name in ENCODINGS}
    assert sizes["float32"] > sizes["float16"] > sizes["int8"] > max(sizes["int3"], sizes["sparse-int8"])
    assert max(sizes["int3"], sizes["sparse-int8"]) < sizes["float32"] / 9


def test_both_ways_to_write_positions_are_used_and_read() -> None:
    forms = set()
    state = {"w": np.random.default_rng(1).standard_normal((200, 200)).astype(np.float32)}
    for density in (0.002, 0.01, 0.4):
        blob = encode(state, encoding="sparse-int8", density=density)
        forms.add(blob[BODY])  # no tensor travels whole, so the body begins with the form
        assert np.count_nonzero(decode(blob, Schema.of(state))["w"]) > 0
    assert forms == {0, 1}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_change_that_is_not_finite_does_not_leave_and_is_named(encoding: str, value: float) -> None:
    state = change()
    state["classifier.weight"][1, 2] = value
    with pytest.raises(UpdateRefusedError, match=r"classifier\.weight"):
        encode(state, encoding=encoding)


def test_an_unknown_encoding_or_density_is_a_setting_to_mend() -> None:
    with pytest.raises(SettingsError, match="float8"):
        encode(change(), encoding="float8")
    for density in (0.0, 1.5, float("nan")):
        with pytest.raises(SettingsError):
            encode(change(), encoding="sparse-int8", density=density)


def test_a_message_for_another_head_is_refused_by_its_schema() -> None:
    blob = encode(change(), encoding="int8")
    other = Schema.of({"classifier.weight": np.zeros((4, 128), np.float32)})
    with pytest.raises(UpdateFormatError, match="another head"):
        decode(blob, other)


def test_a_message_of_a_later_format_says_so() -> None:
    blob = bytearray(encode(change()))
    blob[4] = 2
    with pytest.raises(UpdateFormatError, match="format version; seen: 2"):
        decode(bytes(blob), Schema.of(change()))


@settings(deadline=None)
@given(encodings, st.data())
def test_every_truncation_is_a_format_error(encoding: str, data: st.DataObject) -> None:
    blob = encode(change(), encoding=encoding)
    cut = blob[: data.draw(st.integers(0, len(blob) - 1))]
    with pytest.raises(UpdateFormatError):
        decode(cut, Schema.of(change()))
    if len(cut) > BODY:
        with pytest.raises(UpdateFormatError):
            decode(resealed(cut), Schema.of(change()))


@settings(deadline=None)
@given(encodings, st.data())
def test_every_changed_byte_is_a_format_error(encoding: str, data: st.DataObject) -> None:
    blob = bytearray(encode(change(), encoding=encoding))
    place = data.draw(st.integers(0, len(blob) - 1))
    blob[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UpdateFormatError):
        decode(bytes(blob), Schema.of(change()))


@settings(deadline=None, max_examples=300)
@given(encodings, st.data())
def test_forged_bodies_are_read_within_bounds_or_refused(encoding: str, data: st.DataObject) -> None:
    state = change()
    blob = bytearray(encode(state, encoding=encoding, density=0.1))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(BODY, len(blob) - 1))
        blob[place] = data.draw(st.integers(0, 255))
    try:
        back = decode(resealed(bytes(blob)), Schema.of(state))
    except UpdateFormatError:
        return
    assert {name: values.shape for name, values in back.items()} == {n: v.shape for n, v in state.items()}


@settings(deadline=None, max_examples=200)
@given(encodings, st.binary(max_size=300))
@example("sparse-int8", b"")
def test_any_body_is_read_within_bounds_or_refused(encoding: str, body: bytes) -> None:
    schema = Schema.of({"w": np.zeros((4, 4), np.float32), "b": np.zeros(2, np.float32)})
    try:
        back = decode(seal(encoding, schema, body), schema)
    except UpdateFormatError:
        return
    assert back["w"].shape == (4, 4)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_format_error(blob: bytes) -> None:
    with pytest.raises(UpdateFormatError):
        decode(blob, Schema.of(change()))


@pytest.mark.parametrize("encoding", ["int8", "int3", "sparse-int8"])
def test_a_stream_that_would_inflate_without_end_is_cut_off(encoding: str) -> None:
    import tracemalloc

    schema = Schema.of({"w": np.zeros((8, 8), np.float32)})
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(bytes(50_000_000)) + packer.flush()
    stream = struct.pack("<BI", 1, len(bomb)) + bomb
    steps = np.ones(8, "<f4").tobytes()
    body = struct.pack("<BI", 0, 64) + stream if encoding == "sparse-int8" else steps + stream
    blob = seal(encoding, schema, body)
    tracemalloc.start()
    with pytest.raises(UpdateFormatError, match="another size"):
        decode(blob, schema)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_claimed_count_is_not_believed() -> None:
    schema = Schema.of({"w": np.zeros((8, 8), np.float32)})
    with pytest.raises(UpdateFormatError, match="more values than there are"):
        decode(seal("sparse-int8", schema, struct.pack("<BI", 1, 2**32 - 1)), schema)


def test_gaps_that_lead_beyond_the_end_are_refused() -> None:
    schema = Schema.of({"w": np.zeros((8, 8), np.float32)})
    body = struct.pack("<BI", 1, 1) + struct.pack("<BI", 0, 1) + bytes([64])
    with pytest.raises(UpdateFormatError, match="beyond the end"):
        decode(seal("sparse-int8", schema, body), schema)


def test_a_bitmap_that_marks_padding_is_refused() -> None:
    schema = Schema.of({"w": np.zeros((3, 3), np.float32)})
    body = struct.pack("<BI", 0, 1) + struct.pack("<BI", 0, 2) + bytes([0, 1])
    with pytest.raises(UpdateFormatError, match="beyond the end"):
        decode(seal("sparse-int8", schema, body), schema)


def test_the_format_of_the_documentation_can_be_read_by_hand() -> None:
    schema = Schema.of({"b": np.zeros(2, np.float32), "w": np.zeros((2, 2), np.float32)})
    body = struct.pack("<f", 4.0) + np.array([0.5, -0.25], "<f2").tobytes()  # one tensor whole: scale, values
    body += struct.pack("<2f", 0.5, 2.0)  # steps of two channels
    body += struct.pack("<BI", 0, 4) + bytes([1, 256 - 3, 127, 0])
    blob = struct.pack("<4sBBH32sQ", b"FSPU", 1, 2, 0, bytes.fromhex(schema.hash), len(body))
    blob += struct.pack("<I", zlib.crc32(body, zlib.crc32(blob))) + body
    back = decode(blob, schema)
    assert back["b"].tolist() == [2.0, -1.0]
    assert back["w"].tolist() == [[0.5, -1.5], [254.0, 0.0]]


def test_the_default_is_one_of_the_encodings() -> None:
    assert DEFAULT_ENCODING in ENCODINGS
