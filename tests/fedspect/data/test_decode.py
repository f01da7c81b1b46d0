from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camera_files import png_file
from drawn_surfaces import encoded, png_that_claims, several, strip, write
from fedspect.data import decode as room
from fedspect.data.decode import (
    NotAPictureError,
    TooLargePictureError,
    TruncatedPictureError,
    decode,
    decode_picture,
    read_header,
    read_picture,
)
from fedspect.errors import PictureError

GREY = strip(1, 20, 30)
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)
HERE = Path("some.png")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_grey_pictures_are_read_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    assert np.array_equal(read_picture(write(tmp_path / f"a.{suffix}", GREY)), GREY)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_colour_pictures_are_read_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    assert np.array_equal(read_picture(write(tmp_path / f"a.{suffix}", COLOUR), channels=3), COLOUR)


def test_a_jpeg_is_read_nearly_as_it_was_written(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1))
    read = read_picture(write(tmp_path / "a.jpg", smooth, quality=95))
    assert np.abs(read.astype(int) - smooth).max() <= 4


def test_grey_becomes_three_equal_channels_and_colour_one(tmp_path: Path) -> None:
    three = read_picture(write(tmp_path / "grey.png", GREY), channels=3)
    assert np.array_equal(three, np.stack([GREY] * 3, axis=2))
    one = read_picture(write(tmp_path / "colour.png", COLOUR))
    expected = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert one.shape == (20, 30)
    assert np.abs(one - expected).max() <= 1


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK"])
def test_rare_modes_are_read(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(COLOUR).convert(mode).save(path)
    assert read_picture(path).shape == (20, 30)
    assert read_picture(path, channels=3).shape == (20, 30, 3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bit_grey_is_scaled_by_the_bits_that_it_uses(tmp_path: Path, bits: int, suffix: str) -> None:
    top = (1 << bits) - 1
    pixels = np.array([[0, top // 2, top]], dtype=np.uint16)
    path = write(tmp_path / f"a.{suffix}", pixels)
    assert read_picture(path).tolist() == [[0, 127, 255]]
    assert read_header(path.read_bytes(), path).bits == 16


def test_sixteen_bit_colour_is_scaled_as_grey_is(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_file(np.array([[[65535, 32896, 0]]]), 16, 2))
    assert read_picture(path, channels=3).tolist() == [[[255, 128, 0]]]
    assert read_header(path.read_bytes(), path).bits == 16


def test_a_jpeg_of_several_pictures_is_a_jpeg_and_the_first_is_read() -> None:
    content = several(GREY, 255 - GREY)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "MPO"
    read = decode_picture(content, HERE)
    pixels, header = read.pixels, read.header
    assert header.format == "JPEG" and (pixels > 128).mean() == pytest.approx((GREY > 128).mean(), abs=0.1)


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((4, 4), np.float32))
    with pytest.raises(PictureError, match="more than 16 bits"):
        read_picture(path)


def test_the_header_tells_size_channels_and_format() -> None:
    header = read_header(encoded(COLOUR, "BMP"), HERE)
    assert (header.width, header.height, header.channels, header.bits, header.format) == (30, 20, 3, 8, "BMP")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"gone\.png"):
        read_picture(tmp_path / "gone.png")


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="cannot be read"):
        read_picture(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(str(tmp_path / "pipe.png"))
    with pytest.raises(PictureError, match="not a file"):
        read_picture(tmp_path / "pipe.png")


def test_text_under_the_name_of_a_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not a picture at all")
    with pytest.raises(NotAPictureError, match=r"notes\.png"):
        read_picture(path)


def test_a_gif_is_not_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(GREY, "GIF"))
    with pytest.raises(NotAPictureError):
        read_picture(path)


def test_an_empty_file_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    with pytest.raises(TruncatedPictureError, match="empty"):
        read_picture(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_a_picture_cut_in_the_middle_is_named_truncated(kind: str) -> None:
    content = encoded(strip(2, 64, 64), kind)
    with pytest.raises(PictureError) as caught:
        decode(content[: len(content) // 2], Path("half.png"))
    assert "half.png" in str(caught.value)


def test_a_jpeg_cut_in_the_middle_is_of_the_truncated_kind() -> None:
    content = encoded(strip(2, 64, 64), "JPEG")
    with pytest.raises(TruncatedPictureError) as caught:
        decode(content[: len(content) // 2], HERE)
    assert "64 x 64 pixels" in str(caught.value) and "not processed" not in str(caught.value)


@pytest.mark.parametrize("size", [(30_000, 30_000), (80_001, 1_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_named_without_being_decoded(tmp_path: Path, size: tuple) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(*size))
    tracemalloc.start()
    with pytest.raises(TooLargePictureError, match=r"bomb\.png") as caught:
        read_picture(path)
    assert f"{size[0]} x {size[1]} pixels" in str(caught.value) and "80 million" in str(caught.value)
    assert "DOS" not in str(caught.value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_a_file_beyond_the_bound_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_FILE_BYTES", 100)
    path = write(tmp_path / "a.png", GREY)
    with pytest.raises(TooLargePictureError, match="file is too large"):
        read_picture(path)


def test_two_channels_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="1 or 3"):
        decode_picture(encoded(GREY), HERE, channels=2)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "BMP", "TIFF"]),
    cut=st.floats(0, 1),
    place=st.floats(0, 1),
    junk=st.binary(max_size=8),
)
def test_any_damage_gives_pixels_or_a_picture_error(kind: str, cut: float, place: float, junk: bytes) -> None:
    content = encoded(GREY, kind)
    at = int(place * len(content))
    damaged = (content[:at] + junk + content[at + len(junk) :])[: int(cut * len(content))]
    try:
        pixels = decode(damaged, HERE)
    except PictureError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 2


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_pixels_or_a_picture_error(content: bytes) -> None:
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*"):
        with pytest.raises(PictureError):
            decode(start + content, HERE)
