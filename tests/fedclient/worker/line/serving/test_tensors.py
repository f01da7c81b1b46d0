from __future__ import annotations

from typing import Any, List

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedclient.worker.line.serving.input_pictures import from_pixels
from fedclient.worker.line.serving.protocol_messages import message
from fedclient.worker.line.serving.tensors import RequestError, read_request
from fedspect.errors import FedspectError, PictureError
from line_parts import PREPARED, grey, infer_request, png

ModelInferRequest = message("ModelInferRequest")


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8))
def test_encoded_pictures_come_out_as_they_went_in(contents: List[bytes]) -> None:
    given_ = read_request(infer_request(contents), most=8)
    assert given_.encoded == contents and given_.raw


@given(
    st.tuples(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 6), st.integers(4, 6)), st.booleans()
)
def test_pixels_come_out_as_they_went_in(shape: Any, first: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if not first:
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    given_ = read_request(infer_request(pixels=pixels), most=8)
    assert given_.pixels is not None
    np.testing.assert_array_equal(given_.pixels, pixels)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_junk_is_refused_in_words(content: bytes) -> None:
    try:
        request = ModelInferRequest.FromString(content)
    except Exception:  # protobuf's own refusal, which gRPC answers
        return
    with pytest.raises(FedspectError):
        read_request(request, most=8)


@given(st.binary(max_size=200), st.integers(-(2**62), 2**62), st.sampled_from(["picture", "pixels"]))
def test_shapes_and_values_that_do_not_fit_are_refused_without_reserving_memory(
    content: bytes, size: int, name: str
) -> None:
    request = infer_request()
    shape = [size] if name == "picture" else [size, 3, size, size]
    request.inputs.add(name=name, datatype="BYTES" if name == "picture" else "UINT8", shape=shape)
    request.raw_input_contents.append(content)
    try:
        given_ = read_request(request, most=8)
    except RequestError:
        return
    assert len(given_) == size


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda request: setattr(request.inputs[0], "datatype", "FP32"), "no such input"),
        (lambda request: setattr(request.inputs[0], "name", "image"), "no such input"),
        (lambda request: request.inputs.add(), "one input"),
        (lambda request: request.raw_input_contents.append(b""), "come once"),
        (lambda request: request.inputs[0].shape.append(2), "does not fit its input"),
        (lambda request: request.inputs[0].shape.__setitem__(0, 9), "too many pictures"),
        (lambda request: request.inputs[0].shape.__setitem__(0, 2), "do not fit its shape"),
        (lambda request: request.raw_input_contents.__setitem__(0, b"\xff\xff\xff\xff"), "cut off"),
        (
            lambda request: (
                request.inputs[0].parameters["shared_memory_region"].__setattr__("string_param", "r")
            ),
            "shared memory",
        ),
    ],
)
def test_each_mistake_is_named(change: Any, words: str) -> None:
    request = infer_request([png(grey(1))])
    change(request)
    with pytest.raises(RequestError, match=words):
        read_request(request, most=8)


def test_a_layout_that_could_be_read_both_ways_is_decided_by_the_parameter() -> None:
    pixels = np.zeros((1, 3, 40, 3), dtype=np.uint8)
    pixels[0, 0] = 200  # the first of three channels, or the first of three rows
    assert from_pixels(pixels, PREPARED).pixels.mean() == pytest.approx(
        from_pixels(pixels, PREPARED, "NCHW").pixels.mean()
    )
    assert from_pixels(pixels, PREPARED, "NHWC").pixels.std() > 10
    assert from_pixels(pixels, PREPARED, "NCHW").pixels.std() < 1
    with pytest.raises(FedspectError, match="no such layout"):
        from_pixels(pixels, PREPARED, "CHWN")


@pytest.mark.parametrize("shape", [(1, 2, 5, 5), (1, 5, 5), (0, 1, 5, 5), (1, 4, 7, 4)])
def test_what_is_no_picture_is_refused(shape: Any) -> None:
    with pytest.raises(PictureError, match="not pictures"):
        from_pixels(np.zeros(shape, np.uint8), PREPARED)
