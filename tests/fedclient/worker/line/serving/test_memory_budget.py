from __future__ import annotations

import threading

import numpy as np
import pytest

from fedclient.worker.line.serving import memory_budget as rooms
from fedclient.worker.line.serving.input_pictures import from_encoded, from_pixels
from fedclient.worker.line.serving.memory_budget import BYTES_PER_PIXEL, MemoryBudget
from fedclient.worker.line.serving.model_leases import BusyError
from fedspect.data.decode import TooLargePictureError
from line_parts import PREPARED, grey, png


def test_a_small_file_of_too_many_pixels_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    content = png(grey(60, 400))
    assert len(content) < 2000
    monkeypatch.setattr(
        "fedclient.worker.line.serving.input_pictures.decode_picture",
        lambda *_, **__: pytest.fail("was unpacked"),
    )
    with pytest.raises(TooLargePictureError, match=r"picture 1: 400 x 400; accepted: up to 0.1 million"):
        from_encoded([content], PREPARED, room=MemoryBudget(0.1, 16))


def test_pixels_have_the_same_bound() -> None:
    pixels = np.full((1, 1, 400, 400), 60, np.uint8)
    assert from_pixels(pixels, PREPARED, room=MemoryBudget(0.2, 16)).pixels.shape == (1, 1, 16, 16)
    with pytest.raises(TooLargePictureError):
        from_pixels(pixels, PREPARED, room=MemoryBudget(0.1, 16))


def test_the_room_changes_no_pixel() -> None:
    content = png(np.random.default_rng(0).integers(0, 255, (50, 70), dtype=np.uint8))
    with_room = from_encoded([content], PREPARED, room=MemoryBudget(16, 256)).pixels
    np.testing.assert_array_equal(with_room, from_encoded([content], PREPARED).pixels)


def test_what_finds_no_room_waits_until_it_is_given_back() -> None:
    room = MemoryBudget(16, 16)
    half = (16 << 20) // BYTES_PER_PIXEL // 2
    first, second = threading.Event(), threading.Event()

    def unpack() -> None:
        first.set()
        with room.taken(half, 1, "b"):
            second.set()

    with room.taken(half, 1, "a"), room.taken(half, 1, "c"):
        thread = threading.Thread(target=unpack)
        thread.start()
        assert first.wait(20) and not second.wait(0.05)
    assert second.wait(20)
    thread.join()


def test_one_that_needs_all_of_the_room_is_alone_and_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "LONGEST_WAIT", 0.01)
    room = MemoryBudget(16, 16)
    with room.taken(4000, 4000, "a"), pytest.raises(BusyError), room.taken(1, 1, "b"):
        pass
    with room.taken(1, 1, "b"):
        pass
