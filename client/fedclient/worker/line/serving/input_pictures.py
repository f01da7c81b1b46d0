"""From what a client or a folder hands over to pixels as the model takes them, within bounds.

Pictures come encoded (PNG, JPEG, BMP, TIFF) or as arrays of pixels, N pictures of any size, channels first or
last; three channels are red, green and blue unless the client says ``bgr``. Both end as uint8 (N, C, S, S): the
decoding, and the resizing, are those of training.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import ContextManager, List, Optional, Sequence, Tuple

import numpy as np

from fedclient.worker.line.input_guard import SMALLEST_SIDE, Doubts, InputBatch
from fedclient.worker.line.serving.memory_budget import MemoryBudget
from fedspect.data.decode import MAX_PIXELS, Decoded, decode_picture, read_bytes, read_header
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import PictureError, SettingsError

FIRST, LAST = "NCHW", "NHWC"
CHANNELS = (1, 3)
RGB, BGR = "rgb", "bgr"
BEYOND = 0.01  # the share of pixels above the camera's depth that stuck ones do not explain


def read_encoded(path: Path, preprocessing: Preprocessing) -> InputBatch:
    """One file -> one picture; raises ``PictureError`` naming the file."""
    return from_encoded([read_bytes(path)], preprocessing, [str(path)])


def from_encoded(
    contents: Sequence[bytes],
    preprocessing: Preprocessing,
    names: Optional[Sequence[str]] = None,
    room: Optional[MemoryBudget] = None,
) -> InputBatch:
    """Encoded pictures -> uint8 (N, C, S, S), unpacked in the ``room`` that is given.

    Raises:
        PictureError: one is no picture, damaged or too large; the message says which.
        BusyError: no room came free in time.

    """
    labels = names or [f"picture {number}" for number in range(1, len(contents) + 1)]
    resized: List[np.ndarray] = []
    doubts: List[Doubts] = []
    for content, label in zip(contents, labels):
        if not content:
            raise PictureError("a picture is empty", seen=label)
        with _room_for(content, label, room):
            read = decode_picture(
                content, Path(label), channels=preprocessing.channels, bit_depth=preprocessing.bit_depth
            )
            resized.append(preprocessing.resize(read.pixels))
            doubts.append(_doubts(read, preprocessing.bit_depth))
    return InputBatch(np.stack(resized), doubts)


def from_pixels(
    pixels: np.ndarray,
    preprocessing: Preprocessing,
    layout: Optional[str] = None,
    room: Optional[MemoryBudget] = None,
    colour: Optional[str] = None,
) -> InputBatch:
    """Pixels uint8 (N, C, H, W) or (N, H, W, C) -> uint8 (N, C, S, S).

    Raises:
        SettingsError: no such layout or order of colours.
        PictureError: not four dimensions of uint8, no 1 or 3 channels, or too many pixels.

    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or 0 in pixels.shape:
        raise _shape_error(pixels.dtype.name, pixels.shape)
    if layout_of(pixels.shape, layout) == FIRST:
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.shape[3] not in CHANNELS:
        raise _shape_error(pixels.dtype.name, pixels.shape)
    if room is not None:
        room.check(pixels.shape[2], pixels.shape[1], "pixels")
    elif pixels.shape[1] * pixels.shape[2] > MAX_PIXELS:
        raise PictureError("a picture has too many pixels", seen=f"{pixels.shape[2]} x {pixels.shape[1]}")
    if colour not in (None, RGB, BGR):
        raise SettingsError("no such order of colours", seen=str(colour)[:40], accepted=f"{RGB}, {BGR}")
    if colour == BGR and pixels.shape[3] == 3:
        pixels = pixels[:, :, :, ::-1]
    flat: List[np.ndarray] = [each[:, :, 0] if each.shape[2] == 1 else each for each in pixels]
    resized = np.stack([preprocessing.resize(np.ascontiguousarray(each)) for each in flat])
    return InputBatch(resized, [_too_small(pixels.shape[2], pixels.shape[1])] * len(flat))


def _doubts(read: Decoded, bit_depth: Optional[int]) -> Doubts:
    """What makes a picture doubtful as its file has it."""
    found = _too_small(read.header.width, read.header.height)
    if read.stored is None or read.stored.depth is not None:
        return found
    if bit_depth is None:
        known = "and the model learned from files of 8: nobody told the camera's depth ([camera] bit_depth)"
        return (*found, f"the file has {read.header.bits} bits per channel, {known}")
    if float((read.stored.values >= 1 << bit_depth).mean()) > BEYOND:
        return (*found, f"the picture is brighter than the {bit_depth} bits of this plant's camera")
    return found


def _too_small(width: int, height: int) -> Doubts:
    if min(width, height) >= SMALLEST_SIDE:
        return ()
    return (f"the picture has {width} x {height} pixels only",)


def _room_for(content: bytes, label: str, room: Optional[MemoryBudget]) -> ContextManager[None]:
    if room is None:
        return nullcontext()
    header = read_header(content, Path(label))
    return room.taken(header.width, header.height, label, deep=header.bits > 8)


def layout_of(shape: Tuple[int, ...], said: Optional[str]) -> str:
    """Where the channels are: as said, else where 1 or 3 stands; in front when it stands in both places.

    Raises:
        SettingsError: another layout than these two was said.
        PictureError: channels are in neither place.

    """
    if said is not None:
        if said not in (FIRST, LAST):
            raise SettingsError("no such layout of pixels", seen=said[:40], accepted=f"{FIRST}, {LAST}")
        return said
    if shape[1] in CHANNELS:
        return FIRST
    if shape[3] in CHANNELS:
        return LAST
    raise _shape_error("uint8", shape)


def _shape_error(dtype: str, shape: Tuple[int, ...]) -> PictureError:
    return PictureError(
        "pixels are not pictures",
        seen=f"{dtype} {' x '.join(map(str, shape))}",
        accepted="uint8, N x C x H x W or N x H x W x C with 1 or 3 channels",
    )
