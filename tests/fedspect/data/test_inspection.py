from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import List, Tuple

import numpy as np
import pytest

from drawn_surfaces import REAL_DATA, encoded, folder_of, needs_neu, png_that_claims, strip, write
from fedspect.data import checking
from fedspect.data.inspection import FOUND, Inspection, inspect_pictures
from fedspect.data.inspection_cache import InspectionCache
from fedspect.data.near_duplicates.high_pass import HighPassImages
from fedspect.data.pictures import (
    CONFLICTING_LABELS,
    CROSSING_GROUPS,
    DUPLICATE,
    MISSING,
    NOT_A_PICTURE,
    TOO_LARGE,
    TRUNCATED,
    UNREADABLE,
)
from fedspect.data.sources import find_pictures
from fedspect.errors import ReadOnlyError, StorageError


def groups(inspection: Inspection) -> dict:
    return {picture.name: picture.group for picture in inspection.pictures}


def kinds(inspection: Inspection) -> List[Tuple[str, str]]:
    return [(problem.name, problem.kind) for problem in inspection.problems]


def overlapping_plant(root: Path) -> Path:
    """Two crops of one strip and a stranger in class a, a third crop in class b."""
    surface = strip(1, 120, 300)
    write(root / "a" / "left.png", surface[:, :120])
    write(root / "a" / "middle.png", surface[:, 60:180])
    write(root / "b" / "right.jpg", surface[:, 120:240], quality=90)
    write(root / "b" / "stranger.png", strip(2, 120, 120))
    return root


def test_a_good_picture_is_described(tmp_path: Path) -> None:
    write(tmp_path / "a" / "grey.png", strip(1, 40, 50))
    write(tmp_path / "b" / "colour.bmp", np.zeros((20, 30, 3), np.uint8))
    write(tmp_path / "b" / "deep.tif", np.arange(600, dtype=np.uint16).reshape(20, 30))
    pictures = inspect_pictures(find_pictures(tmp_path)).pictures
    assert [(p.name, p.label, p.width, p.height, p.channels, p.bits) for p in pictures] == [
        ("a/grey.png", "a", 50, 40, 1, 8),
        ("b/colour.bmp", "b", 30, 20, 3, 8),
        ("b/deep.tif", "b", 30, 20, 1, 16),
    ]
    assert all(len(p.digest) == 32 and int(p.digest, 16) for p in pictures)


def test_bad_files_are_named_with_their_kind_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "text.png").write_text("not a picture")
    (tmp_path / "a" / "bomb.png").write_bytes(png_that_claims(30_000, 30_000))
    whole = encoded(strip(3, 64, 64), "JPEG")
    (tmp_path / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b" / "empty.bmp").touch()
    write(tmp_path / "b" / "float.tif", np.ones((8, 8), np.float32))
    inspection = inspect_pictures(find_pictures(tmp_path))
    assert sorted(kinds(inspection)) == [
        ("a/bomb.png", TOO_LARGE),
        ("a/text.png", NOT_A_PICTURE),
        ("b/cut.jpg", TRUNCATED),
        ("b/empty.bmp", TRUNCATED),
        ("b/float.tif", UNREADABLE),
    ]
    assert all(problem.left_out for problem in inspection.problems)
    assert not any(str(tmp_path) in problem.detail for problem in inspection.problems)
    assert len(inspection.pictures) == 4


def test_every_file_bad_leaves_nothing_but_problems(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_text("x")
    inspection = inspect_pictures(find_pictures(tmp_path))
    assert inspection.pictures == []
    assert len(inspection.problems) == 1


def test_a_file_that_goes_away_after_listing_is_named(tmp_path: Path) -> None:
    listing = find_pictures(folder_of(tmp_path, {"a": 1, "b": 1}))
    (tmp_path / "a" / "0.png").unlink()
    inspection = inspect_pictures(listing)
    assert kinds(inspection) == [("a/0.png", UNREADABLE)]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    listing = find_pictures(folder_of(tmp_path, {"a": 1, "b": 1}))
    (tmp_path / "a" / "0.png").chmod(0)
    assert kinds(inspect_pictures(listing)) == [("a/0.png", UNREADABLE)]


def test_overlapping_pictures_share_a_group_across_classes(tmp_path: Path) -> None:
    inspection = inspect_pictures(find_pictures(overlapping_plant(tmp_path)))
    found = groups(inspection)
    assert found["a/left.png"] == found["a/middle.png"] == found["b/right.jpg"]
    assert found["b/stranger.png"] != found["a/left.png"]
    assert all(group.startswith(FOUND) for group in found.values())
    assert inspection.searched
    assert {link.columns for link in inspection.links} <= {60, 120}


def test_group_names_do_not_depend_on_the_order_or_on_other_pictures(tmp_path: Path) -> None:
    listing = find_pictures(overlapping_plant(tmp_path))
    turned = dataclasses.replace(listing, pictures=listing.pictures[::-1])
    assert groups(inspect_pictures(turned)) == groups(inspect_pictures(listing))
    fewer = dataclasses.replace(listing, pictures=listing.pictures[:3])
    assert groups(inspect_pictures(fewer)).items() <= groups(inspect_pictures(listing)).items()


def test_exact_copies_share_a_group_and_are_named(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a": 2, "b": 1})
    content = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "copy.png").write_bytes(content)
    (tmp_path / "b" / "copy.png").write_bytes(content)
    inspection = inspect_pictures(find_pictures(tmp_path), overlaps=False)
    assert kinds(inspection) == [("a/copy.png", DUPLICATE), ("b/copy.png", CONFLICTING_LABELS)]
    assert not any(problem.left_out for problem in inspection.problems)
    assert len(inspection.pictures) == 5
    found = groups(inspection)
    assert found["a/0.png"] == found["a/copy.png"] == found["b/copy.png"]
    assert not inspection.searched


def test_the_groups_of_a_list_stay_and_overlaps_across_them_are_named(tmp_path: Path) -> None:
    overlapping_plant(tmp_path)
    path = tmp_path / "list.csv"
    path.write_text(
        "path,class,group\na/left.png,a,one\na/middle.png,a,two\nb/right.jpg,b,two\nb/stranger.png,b,three\n"
    )
    quick = inspect_pictures(find_pictures(path))
    assert not quick.searched
    thorough = inspect_pictures(find_pictures(path), overlaps=True)
    assert groups(quick) == groups(thorough)
    assert groups(quick)["a/left.png"] == "one"
    assert [kind for _, kind in kinds(thorough)] == [CROSSING_GROUPS]


def test_a_picture_that_the_list_does_not_group_takes_the_group_that_it_overlaps(tmp_path: Path) -> None:
    overlapping_plant(tmp_path)
    path = tmp_path / "list.csv"
    path.write_text("path,class,group\na/left.png,a,one\na/middle.png,a,\nb/stranger.png,b,\n")
    found = groups(inspect_pictures(find_pictures(path)))
    assert found["a/left.png"] == found["a/middle.png"] == "one"
    assert found["b/stranger.png"].startswith(FOUND)


def test_threads_change_nothing(tmp_path: Path) -> None:
    listing = find_pictures(overlapping_plant(tmp_path))
    assert inspect_pictures(listing, workers=3) == inspect_pictures(listing)


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    told: List[Tuple[int, int]] = []
    listing = find_pictures(overlapping_plant(tmp_path))
    inspect_pictures(listing, progress=lambda done, steps: told.append((done, steps)))
    assert told == sorted(told)
    count = len(listing.pictures)
    assert {steps for _, steps in told} == {count} and told[-1] == (count, count)


def test_a_second_inspection_reads_the_cache_and_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = overlapping_plant(tmp_path / "pictures"), tmp_path / "cache.npz"
    (root / "a" / "text.png").write_text("not a picture")
    listing = find_pictures(root)
    first = inspect_pictures(listing, cache=cache)
    monkeypatch.setattr(checking, "decode_picture", None)
    assert inspect_pictures(listing, cache=cache) == first


def test_a_changed_file_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    root, cache = overlapping_plant(tmp_path / "pictures"), tmp_path / "cache.npz"
    inspect_pictures(find_pictures(root), cache=cache)
    write(root / "a" / "middle.png", strip(9, 120, 120))
    again = inspect_pictures(find_pictures(root), cache=cache)
    assert again == inspect_pictures(find_pictures(root))


def test_pictures_that_are_added_find_their_old_neighbours(tmp_path: Path) -> None:
    root, cache = overlapping_plant(tmp_path / "pictures"), tmp_path / "cache.npz"
    listing = find_pictures(root)
    before = dataclasses.replace(listing, pictures=listing.pictures[1:])
    inspect_pictures(before, cache=cache)
    added = inspect_pictures(listing, cache=cache)
    assert groups(added) == groups(inspect_pictures(listing))


def test_a_group_whose_middle_is_gone_falls_apart(tmp_path: Path) -> None:
    root, cache = tmp_path / "pictures", tmp_path / "cache.npz"
    surface = strip(5, 120, 400)
    for number, at in enumerate((0, 90, 180)):
        write(root / "a" / f"{number}.png", surface[:, at : at + 120])
    assert len(set(groups(inspect_pictures(find_pictures(root), cache=cache)).values())) == 1
    (root / "a" / "1.png").unlink()
    assert len(set(groups(inspect_pictures(find_pictures(root), cache=cache)).values())) == 2


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY\x01\x00"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, content: bytes) -> None:
    root, cache = overlapping_plant(tmp_path / "pictures"), tmp_path / "cache.npz"
    cache.write_bytes(content)
    inspect_pictures(find_pictures(root), cache=cache)
    assert InspectionCache.load(cache).compared


def test_a_cache_cut_anywhere_is_made_again(tmp_path: Path) -> None:
    root, cache = overlapping_plant(tmp_path / "pictures"), tmp_path / "cache.npz"
    inspect_pictures(find_pictures(root), cache=cache)
    whole = cache.read_bytes()
    for part in range(0, 10):
        cache.write_bytes(whole[: len(whole) * part // 10])
        assert InspectionCache.load(cache) == InspectionCache()


def test_a_cache_of_which_a_bit_has_turned_is_made_again_or_holds_what_it_held(tmp_path: Path) -> None:
    root, cache = overlapping_plant(tmp_path / "pictures"), tmp_path / "cache.npz"
    listing = find_pictures(root)
    whole = inspect_pictures(listing, cache=cache)
    content = cache.read_bytes()
    for place in range(0, len(content), 37):
        cache.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        InspectionCache.load(cache)
    assert inspect_pictures(listing, cache=cache) == whole


def test_a_cache_with_pickled_objects_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "cache.npz"
    np.savez(str(path), about=np.array([{"a": 1}], dtype=object))
    assert InspectionCache.load(path) == InspectionCache()


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    listing = find_pictures(folder_of(tmp_path / "pictures", {"a": 1, "b": 1}))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        inspect_pictures(listing, cache=tmp_path / "file" / "cache.npz")
    if os.geteuid():
        (tmp_path / "shut").mkdir(mode=0o500)
        with pytest.raises(ReadOnlyError):
            inspect_pictures(listing, cache=tmp_path / "shut" / "cache.npz")


def test_reliefs_beyond_the_bound_are_made_again(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.png", strip(n, 40, 40)) for n in range(3)]
    reliefs = HighPassImages(1, limit_bytes=3500)
    first = reliefs.get("0", paths[0])
    for number in (1, 2):
        reliefs.get(str(number), paths[number])
    again = reliefs.get("0", paths[0])
    assert again is not first
    assert np.array_equal(again, first)
    paths[1].unlink()
    assert reliefs.get("1", paths[1]).size == 0


def test_missing_files_of_a_list_are_among_the_problems(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a": 1, "b": 1})
    path = tmp_path / "list.csv"
    path.write_text("path,class,group\na/0.png,a,x\nb/0.png,b,y\nb/9.png,b,z\n")
    assert kinds(inspect_pictures(find_pictures(path))) == [("b/9.png", MISSING)]


@pytest.mark.real_data
@needs_neu
def test_the_neu_overlaps_agree_with_the_list_and_go_beyond_it() -> None:
    listing = find_pictures(REAL_DATA / "neu", manifest=REAL_DATA / "neu_split.csv")
    some = [picture for picture in listing.pictures if picture.label == "patches"]
    ungrouped = tuple(dataclasses.replace(picture, group=None) for picture in some)
    inspection = inspect_pictures(dataclasses.replace(listing, pictures=ungrouped))
    found = np.array([picture.group for picture in inspection.pictures])
    listed = np.array([picture.group for picture in some])
    upper = np.triu_indices(len(found), 1)
    together = (found[:, None] == found[None])[upper]
    expected = (listed[:, None] == listed[None])[upper]
    assert together[expected].mean() > 0.98
    assert 120 < len(set(found)) < len(set(listed)) == 178
    assert kinds(inspection) == [("patches/patches_105.jpg", DUPLICATE)]
