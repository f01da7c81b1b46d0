from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import List, Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn_surfaces import REAL_DATA, encoded, needs_neu, strip
from fedspect.data.decode import decode, read_picture
from fedspect.data.near_duplicates.keypoints import (
    DESCRIPTION_LENGTH,
    find_keypoints,
    highest_around,
    mean_around,
    relief,
)
from fedspect.data.near_duplicates.locality_hashing import find_candidates
from fedspect.data.near_duplicates.overlap import (
    Overlap,
    common_reduction,
    compare,
    find_overlaps,
    group_overlapping,
    independent_pixels,
)


def saved_again(pixels: np.ndarray, quality: int = 85) -> np.ndarray:
    return decode(encoded(pixels, "JPEG", quality=quality), Path("x.jpg"))


def overlaps_of(pictures: List[np.ndarray], **options: object) -> List[Overlap]:
    reliefs = [relief(picture) for picture in pictures]
    marks = [find_keypoints(surface) for surface in reliefs]
    return find_overlaps(marks, lambda number: reliefs[number], **options)  # type: ignore[arg-type]


def pairs_of(overlaps: List[Overlap]) -> List[Tuple[int, int]]:
    return sorted((each.first, each.second) for each in overlaps)


def test_the_mean_around_a_pixel_stops_at_the_border() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    means = mean_around(values, 1)
    assert means[0, 0] == values[:2, :2].mean()
    assert means[1, 1] == values[:3, :3].mean()
    assert mean_around(values, 9)[2, 3] == pytest.approx(values.mean())


def test_the_highest_around_a_pixel_is_that_of_its_square() -> None:
    values = np.random.RandomState(0).randint(0, 99, (9, 11))
    found = highest_around(values, 2)
    for row, column in itertools.product(range(9), range(11)):
        window = values[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        assert found[row, column] == window.max()


def test_a_relief_forgets_light_and_exposure() -> None:
    pixels = strip(1).astype(float)
    slope = np.linspace(0, 40, pixels.shape[1])
    one, other = relief(pixels.astype(np.uint8)), relief((0.6 * pixels + slope).astype(np.uint8))
    inner = (slice(10, -10), slice(10, -10))
    assert np.corrcoef(one[inner].ravel(), other[inner].ravel())[0, 1] > 0.97


def test_keypoints_move_with_the_surface() -> None:
    surface = strip(2, 200, 300)
    one, other = (find_keypoints(relief(surface[:, at : at + 200])) for at in (0, 60))
    moved = {(row, column - 60) for row, column in one.places.tolist() if 90 < column < 170}
    assert len(moved) > 20
    assert len(moved & {tuple(place) for place in other.places.tolist()}) > 0.8 * len(moved)


@pytest.mark.parametrize("shape", [(1, 1), (16, 200), (17, 17), (3, 40)])
def test_pictures_too_small_for_keypoints_have_none_or_few(shape: Tuple[int, int]) -> None:
    marks = find_keypoints(relief(strip(1, 200, 200)[: shape[0], : shape[1]]))
    assert marks.descriptions.shape == (len(marks.places), DESCRIPTION_LENGTH)
    assert len(marks.places) <= 1


def test_flat_pictures_and_straight_lines_have_no_keypoints() -> None:
    flat = np.full((100, 100), 90, np.uint8)
    lines = np.tile((strip(3, 1, 100)[0]), (100, 1))
    assert len(find_keypoints(relief(flat)).places) == 0
    assert len(find_keypoints(relief(lines)).places) == 0


@pytest.mark.parametrize("shift", [(0, 0), (0, 60), (35, -70), (-90, 20)])
def test_two_crops_of_one_strip_are_found_with_their_shift(shift: Tuple[int, int]) -> None:
    surface = strip(4, 320, 320)
    rows, columns = shift
    one = saved_again(surface[90:250, 80:240])
    other = saved_again(surface[90 + rows : 250 + rows, 80 + columns : 240 + columns], 70)
    (found,) = overlaps_of([strip(5, 160, 160), one, strip(6, 160, 160), other])
    assert (found.first, found.second, found.rows, found.columns) == (1, 3, rows, columns)
    assert found.share == pytest.approx((160 - abs(rows)) * (160 - abs(columns)) / 160**2)
    assert found.correlation > 0.8


def test_a_place_under_other_light_and_noise_is_found() -> None:
    surface = strip(7, 200, 260).astype(float)
    noise = np.random.RandomState(1).normal(0, 6, (200, 200))
    later = np.clip(255 * (surface[:, 60:] / 255) ** 1.5 * 0.8 + noise, 0, 255).astype(np.uint8)
    assert pairs_of(overlaps_of([surface[:, :200].astype(np.uint8), later])) == [(0, 1)]


def test_strangers_and_mirror_images_are_not_joined() -> None:
    pictures = [strip(seed, 150, 150) for seed in range(8, 20)]
    mirrored = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
    assert overlaps_of(pictures + mirrored) == []


def test_straight_scratches_on_different_strips_are_not_joined() -> None:
    pictures = []
    for seed in range(30, 36):
        picture = strip(seed, 150, 150).astype(int) // 8 + 60
        picture[:, 70:73] += 150
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
    assert overlaps_of(pictures) == []


def test_a_chain_of_crops_is_one_group() -> None:
    surface = strip(21, 150, 600)
    crops = [surface[:, at : at + 150] for at in (0, 100, 200, 300, 400)]
    found = overlaps_of([*crops, strip(22, 150, 150)])
    assert group_overlapping(6, [(each.first, each.second) for each in found]) == [0, 0, 0, 0, 0, 5]
    assert len(found) == 4


def test_only_pairs_with_a_fresh_picture_are_looked_at() -> None:
    surface = strip(23, 150, 200)
    pictures = [surface[:, :150], surface[:, 20:170], surface[:, 40:190]]
    found = overlaps_of(pictures, fresh=[False, False, True])
    assert pairs_of(found)
    assert all(each.second == 2 for each in found)


def test_pictures_of_different_sizes_are_compared() -> None:
    surface = strip(24, 220, 300)
    assert pairs_of(overlaps_of([surface, surface[30:150, 100:220]])) == [(0, 1)]


def test_no_pictures_and_empty_ones_have_no_overlaps() -> None:
    assert overlaps_of([]) == []
    assert overlaps_of([np.zeros((2, 2), np.uint8)] * 3) == []
    assert find_candidates([]).shape == (0, 5)


def test_candidates_come_with_most_votes_first_and_in_order() -> None:
    surface = strip(25, 160, 400)
    crops = [surface[:, at : at + 160] for at in (0, 20, 130)]
    rows = find_candidates([find_keypoints(relief(crop)) for crop in crops])
    assert (rows[:, 0] < rows[:, 1]).all()
    assert (np.diff(rows[:, 4]) <= 0).all()
    assert rows[0].tolist()[:4] == [0, 1, 0, 20]


def test_progress_goes_up_to_one() -> None:
    surface = strip(26, 150, 200)
    told: List[float] = []
    overlaps_of([surface[:, :150], surface[:, 30:180]], progress=told.append)
    assert told
    assert all(0 <= part <= 1 for part in told)


def test_independent_pixels_are_all_of_noise_and_few_of_lines() -> None:
    random = np.random.RandomState(2)
    one, other = random.normal(0, 20, (2, 60, 80)).astype(np.int8)
    assert 0.8 < independent_pixels(one, other) / (60 * 80) < 1.2
    lines = np.tile(random.normal(0, 20, 80), (60, 1)).astype(np.int8)
    assert independent_pixels(lines, lines[:, ::-1]) < 100
    assert independent_pixels(np.zeros((5, 5), np.int8), one[:5, :5]) == 0


def test_comparing_beyond_the_border_finds_nothing() -> None:
    surface = relief(strip(27, 60, 60))
    assert compare(surface, surface, 58, 0) is None
    assert compare(surface, np.zeros((0, 0), np.int8), 0, 0) is None


def test_a_shift_that_is_a_little_off_is_bettered() -> None:
    surface = relief(strip(28, 150, 200))
    found = compare(surface[:, :150], surface[:, 40:190], 2, 39)
    assert found is not None
    assert found[3:] == (0, 40)


@pytest.mark.parametrize(
    ("sizes", "reduction"),
    [([], 1), ([(200, 200)], 1), ([(640, 480)] * 3 + [(9000, 9000)], 3), ([(2048, 1024)] * 2, 8)],
)
def test_large_pictures_are_reduced_by_one_number_for_all(sizes: list, reduction: int) -> None:
    assert common_reduction(sizes) == reduction


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 20).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))
    )
)
def test_groups_are_the_connected_parts(case: Tuple[int, List[Tuple[int, int]]]) -> None:
    count, pairs = case
    groups = group_overlapping(count, pairs)
    near = np.eye(count, dtype=bool)
    for one, other in pairs:
        near[one, other] = near[other, one] = True
    for _ in range(count):
        near = near @ near
    assert groups == [int(np.nonzero(row)[0][0]) for row in near]


@pytest.mark.real_data
@needs_neu
def test_the_overlaps_of_the_neu_list_are_found_in_one_class() -> None:
    with (REAL_DATA / "neu_split.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["class"] == "crazing"][:150]
    found = overlaps_of([read_picture(REAL_DATA / "neu" / row["path"]) for row in rows])
    groups = np.array(group_overlapping(150, [(each.first, each.second) for each in found]))
    listed = np.array([row["group"] for row in rows])
    listed_pairs = listed[:, None] == listed[None]
    assert (groups[:, None] == groups[None])[listed_pairs].mean() == 1.0
    across = [each for each in found if listed[each.first] != listed[each.second]]
    assert all(each.correlation > 0.7 for each in across)  # what the list missed is no matter of doubt
