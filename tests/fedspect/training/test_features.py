from __future__ import annotations

import resource
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
import torch

from fedspect.data.pictures import CheckedPicture
from fedspect.errors import PictureError
from fedspect.model.levels import LevelledNetwork, freeze, frozen_part
from fedspect.training.features import FrozenFeatures, feature_key
from fedspect.training.images import Images, Item
from training_pictures import GREY, make_pictures, small_network, small_settings

ROOM = 1 << 30


def images_of(**changes: Any) -> Images:
    views = small_settings(views={"views_per_picture": 12}).views
    return Images(GREY, views, device=torch.device("cpu"), **{"memory_limit": ROOM, **changes})


@pytest.fixture(scope="module")
def network() -> LevelledNetwork:
    network = small_network()
    freeze(network, 8)
    return network.eval()


def features_of(network: LevelledNetwork, folder: Path | None, **changes: Any) -> FrozenFeatures:
    options = {"cache_limit": ROOM, "memory_limit": ROOM, "half": False, "key": "k", **changes}
    return FrozenFeatures(frozen_part(network, 8), images_of(), folder=folder, **options)


def items_of(pictures: List[CheckedPicture], *views: int) -> List[Item]:
    return [(picture, view) for view in views for picture in pictures]


def unheard(done: int, total: int) -> None:
    pass


def test_a_row_is_what_the_frozen_levels_answer_to_half_precision(
    network: LevelledNetwork, pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    items = items_of(pictures[:5], 0, 3, 9)
    features = features_of(network, tmp_path)
    features.prepare(items, unheard)
    asked = frozen_part(network, 8)(images_of().batch(items))
    gathered = features.batch(items)
    assert gathered.dtype == torch.float32 and gathered.shape == asked.shape
    assert float((gathered - asked).abs().max()) < 2e-3 * float(asked.abs().max())


def test_rows_are_the_same_bits_whatever_was_known_before_and_whoever_shares_the_batch(
    network: LevelledNetwork, pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    items = items_of(pictures[:7], 0, 8)
    cold = features_of(network, tmp_path / "a")
    cold.prepare(items, unheard)
    warm = features_of(network, tmp_path / "a")
    pieces = features_of(network, tmp_path / "b")
    pieces.prepare(items[5:6], unheard)
    pieces.prepare(items[::-1], unheard)
    nowhere = features_of(network, None, memory_limit=0)
    for features in (cold, warm, pieces, nowhere):
        assert torch.equal(features.batch(items), cold.batch(items))
    assert (cold.computed, warm.computed, pieces.computed) == (14, 0, 14)


def test_nothing_is_computed_twice_while_there_is_room(
    network: LevelledNetwork, pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    items = items_of(pictures[:4], 0)
    for features in (features_of(network, tmp_path), features_of(network, None)):
        for _ in range(3):
            features.prepare(items + items, unheard)
            features.batch(items)
        assert features.computed == 4


def test_features_go_to_memory_when_the_disk_has_no_room_and_are_computed_again_when_memory_has_none(
    network: LevelledNetwork, pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    items = items_of(pictures[:10], 0)
    reference = features_of(network, None).batch(items)
    row = reference[0].numel() * 2
    in_memory = features_of(network, tmp_path, cache_limit=0)
    in_memory.prepare(items, unheard)
    assert torch.equal(in_memory.batch(items), reference) and in_memory.computed == 10
    tight = features_of(network, None, memory_limit=3 * row)
    tight.prepare(items, unheard)
    assert torch.equal(tight.batch(items), reference) and tight.memory_left == 0
    assert tight.computed > 10


def test_memory_that_variants_of_the_last_pool_took_is_free_for_the_next_and_orientations_stay(
    network: LevelledNetwork, pictures: List[CheckedPicture]
) -> None:
    row = features_of(network, None).batch(items_of(pictures[:1], 0))[0].numel() * 2
    features = features_of(network, None, memory_limit=4 * row)
    for pool in (8, 9):
        items = items_of(pictures[:2], 0, pool)
        features.refresh()
        for _ in range(3):
            features.prepare(items, unheard)
            features.batch(items)
    assert features.computed == 6 and features.memory_left == 0


def test_features_of_half_precision_have_a_key_of_their_own() -> None:
    assert feature_key("base", 8, "grey", half=True) != feature_key("base", 8, "grey", half=False)


def test_a_cache_that_cannot_be_written_is_remarked_once_and_training_goes_on(
    network: LevelledNetwork, pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    features = features_of(network, tmp_path / "file")
    features.prepare(items_of(pictures[:3], 0), unheard)
    features.prepare(items_of(pictures[:3], 1), unheard)
    assert features.computed == 6 and features.batch(items_of(pictures[:3], 0, 1)).shape[0] == 6
    assert len(features.remarks()) == 1 and "cache" in features.remarks()[0]


def test_a_disk_that_fills_up_while_writing_leaves_nothing_half_written_and_training_goes_on(
    network: LevelledNetwork, pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    features = features_of(network, tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # no file may grow beyond this
    try:
        features.prepare(items_of(pictures[:8], 0), unheard)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert features.batch(items_of(pictures[:8], 0)).shape[0] == 8 and features.computed == 8
    assert len(features.remarks()) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_interrupt_keeps_what_was_computed(
    network: LevelledNetwork, pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    def interrupted(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features_of(network, tmp_path).prepare(items_of(pictures, 0), interrupted)
    later = features_of(network, tmp_path)
    later.prepare(items_of(pictures, 0), unheard)
    assert later.computed == len(pictures) - 8


def test_known_features_need_no_picture_and_a_lost_picture_is_named(
    network: LevelledNetwork, tmp_path: Path
) -> None:
    pictures = make_pictures(tmp_path / "pictures", 1)
    features_of(network, tmp_path / "cache").prepare(items_of(pictures, 0), unheard)
    pictures[1].path.unlink()
    later = features_of(network, tmp_path / "cache")
    later.prepare(items_of(pictures, 0), unheard)
    assert later.batch(items_of(pictures, 0)).shape[0] == 3
    with pytest.raises(PictureError, match="coarse"):
        later.prepare(items_of(pictures, 1), unheard)


def test_images_are_normalised_as_on_the_line(pictures: List[CheckedPicture]) -> None:
    batch = images_of().batch(items_of(pictures[:3], 0)).numpy()
    expected = np.stack([GREY.normalise(GREY.load(picture.path)) for picture in pictures[:3]])
    assert np.allclose(batch, expected, atol=1e-6)


def test_pixels_are_kept_up_to_the_limit_and_views_do_not_depend_on_it(
    pictures: List[CheckedPicture],
) -> None:
    roomy, tight = images_of(), images_of(memory_limit=2 * GREY.size**2)
    items = items_of(pictures[:4], 9)
    assert torch.equal(roomy.batch(items), tight.batch(items))
    assert torch.equal(roomy.batch(items), tight.batch(items))
    assert tight.memory_left == 0
