from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Dict, List, Optional, Set, Tuple

import pytest

from fedspect.data.classes import ClassList
from fedspect.data.folder_layout import LayoutError
from fedspect.data.pictures import EMPTY_CLASS, IGNORED, MASK, UNLABELLED, UNSUPPORTED
from fedspect.data.sources import Listing, find_pictures, own_split
from fedspect.errors import ClassError


def listed(root: Path, *names: str) -> Listing:
    """A listing of empty files of these names; nothing is decoded."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return find_pictures(root)


def found(listing: Listing) -> Set[Tuple[str, Optional[str], Optional[str]]]:
    return {(each.name, each.label, each.split) for each in listing.pictures}


def kinds(listing: Listing) -> Dict[str, List[str]]:
    named: Dict[str, List[str]] = {}
    for problem in listing.problems:
        named.setdefault(problem.kind, []).append(problem.name)
    return named


def test_splits_above_classes_are_sides_and_a_stray_picture_is_left_out(tmp_path: Path) -> None:
    listing = listed(tmp_path, "train/pit/1.png", "test/dent/2.png", "train/overview.png")
    assert found(listing) == {("train/pit/1.png", "pit", "train"), ("test/dent/2.png", "dent", "test")}
    assert kinds(listing) == {UNLABELLED: ["train/overview.png"]}
    assert "the split is yours (1 test, 1 train); 1 files left out" in listing.understood


def test_splits_below_classes_are_sides(tmp_path: Path) -> None:
    listing = listed(tmp_path, "pit/train/1.png", "pit/test/2.png", "dent/Train/3.png", "dent/test/4.png")
    assert {(label, split) for _, label, split in found(listing)} == {
        (label, split) for label in ("pit", "dent") for split in ("train", "test")
    }


def test_the_layout_of_mvtec_has_masks_that_are_no_pictures(tmp_path: Path) -> None:
    listing = listed(
        tmp_path, "train/good/1.png", "test/good/2.png", "test/cut/3.png", "ground_truth/cut/3_mask.png"
    )
    assert {label for _, label, _ in found(listing)} == {"good", "cut"}
    assert kinds(listing) == {MASK: ["ground_truth/cut"]}
    assert "masks in 1 folders are no pictures" in listing.understood


def test_masks_that_lie_beside_their_pictures_are_no_pictures(tmp_path: Path) -> None:
    listing = listed(tmp_path, "pit/1.png", "pit/1_GT.png", "dent/2.png", "dent/of_a_label.png")
    assert {name for name, _, _ in found(listing)} == {"pit/1.png", "dent/2.png", "dent/of_a_label.png"}


def test_folders_around_and_between_count_for_nothing(tmp_path: Path) -> None:
    listing = listed(tmp_path, "NEU-DET/train/images/pit/1.jpg", "NEU-DET/validation/images/dent/2.jpg")
    assert {(label, split) for _, label, split in found(listing)} == {
        ("pit", "train"),
        ("dent", "validation"),
    }
    assert not own_split(listing.pictures)  # nothing to test with


def test_names_tell_the_class_below_splits(tmp_path: Path) -> None:
    listing = listed(tmp_path, "train/crazing_1.jpg", "test/patches_2.jpg")
    assert {(label, split) for _, label, split in found(listing)} == {
        ("crazing", "train"), ("patches", "test"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train/pit/1.png", "test/pit/2.png", "dent/3.png"), "beside others"),
        (("pit/train/1.png", "pit/test/2.png", "dent/3.png"), "below some classes only"),
        (("bottle/train/good/1.png", "cable/test/good/2.png"), "several sets"),
    ],
)
def test_folders_that_contradict_each_other_are_an_error(
    tmp_path: Path, names: Tuple[str, ...], words: str
) -> None:
    with pytest.raises(LayoutError, match=words):
        listed(tmp_path, *names)


def test_every_file_that_is_left_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "dentless").mkdir()
    listing = listed(tmp_path, "pit/1.png", "dent/2.pgm", "oil/3.webp", "pit/notes.txt")
    assert kinds(listing) == {
        UNSUPPORTED: ["oil/3.webp"], IGNORED: ["pit/notes.txt"], EMPTY_CLASS: ["dentless", "oil"],
    }  # fmt: skip
    assert {label for _, label, _ in found(listing)} == {"pit", "dent"}


def test_letters_of_a_mac_and_of_windows_are_one_class_and_one_file(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "Löcher") for form in ("NFC", "NFD"))
    assert one != other
    listing = listed(tmp_path, f"{one}/1.png", f"{other}/2.png", "gut/3.png")
    assert listing.classes is not None and listing.classes.names == (one, "gut")
    assert ClassList((other, "gut")).index(one) == 0
    path = tmp_path / "list.csv"
    path.write_text(f"path,class\n{one}/2.png,{one}\ngut/3.png,gut\n", encoding="utf-8")
    assert len(find_pictures(path).pictures) == 2


def test_a_class_name_in_another_encoding_is_refused_with_the_mend() -> None:
    with pytest.raises(ClassError, match="UTF-8") as caught:
        ClassList(("L\udcf6cher", "gut"))
    assert "LC_ALL" in str(caught.value.remedy)


@pytest.mark.parametrize(
    "text",
    [
        "path;class;;\npit/1.png;pit;;\ndent/2.png;dent\n;;;\n",
        "sep=;\npath;class\npit/1.png;pit\ndent/2.png;dent\n",
        "\ufeffpath;class\r\npit/1.png;pit\r\ndent/2.png;dent\r\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_are_read_as_excel_writes_them(tmp_path: Path, text: str, encoding: str) -> None:
    listed(tmp_path, "pit/1.png", "dent/2.png")
    path = tmp_path / "list.csv"
    path.write_bytes(text.lstrip("\ufeff").encode(encoding) if encoding == "utf-16" else text.encode())
    assert {each.label for each in find_pictures(path).pictures} == {"pit", "dent"}
