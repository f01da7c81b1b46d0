from __future__ import annotations

import os
from pathlib import Path
from typing import List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drawn_surfaces import REAL_DATA, folder_of, needs_ball_screws, needs_neu
from fedspect.data.classes import ClassList
from fedspect.data.pictures import (
    CLASS_SPELLING,
    MISSING,
    OUTSIDE,
    REPEATED,
    UNKNOWN_CLASS,
    UNLABELLED,
    UNREADABLE,
)
from fedspect.data.sources import find_pictures
from fedspect.errors import ClassError, DataError, ManifestError, NoPicturesError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def manifest(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def found(listing: object) -> List[tuple]:
    return [(picture.name, picture.label) for picture in listing.pictures]  # type: ignore[attr-defined]


def kinds(listing: object) -> List[tuple]:
    return [(problem.name, problem.kind) for problem in listing.problems]  # type: ignore[attr-defined]


def test_one_folder_per_class(tmp_path: Path) -> None:
    touch(tmp_path, "pit/b.PNG", "pit/deep/a.jpg", "good/1.tiff", "good/.hidden.png", "good/notes.txt")
    listing = find_pictures(tmp_path)
    assert listing.kind == "folders"
    assert found(listing) == [("good/1.tiff", "good"), ("pit/b.PNG", "pit"), ("pit/deep/a.jpg", "pit")]
    assert listing.classes is not None
    assert listing.classes.names == ("good", "pit")
    assert listing.ignored == 1


def test_folders_of_a_split_hold_folders_of_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/pit/1.png", "train/good/2.png", "Test/pit/3.png", "val/good/4.png")
    listing = find_pictures(tmp_path)
    splits = {picture.name: (picture.split, picture.label) for picture in listing.pictures}
    assert splits["Test/pit/3.png"] == ("test", "pit")
    assert splits["val/good/4.png"] == ("validation", "good")


def test_a_side_of_a_split_never_becomes_a_class(tmp_path: Path) -> None:
    with pytest.raises(ClassError, match="lie beside others"):
        find_pictures(touch(tmp_path, "test/1.png", "other/2.png"))


def test_flat_neu_names_long_and_short(tmp_path: Path) -> None:
    touch(tmp_path, "crazing_12.jpg", "Cr_3.bmp", "In_1.bmp", "Pa_1.bmp", "PS_1.bmp", "RS_1.bmp", "Sc_1.bmp")
    touch(tmp_path, "rolled-in_scale_7.jpg", "pitted_surface_9.jpg", "holiday.jpg")
    listing = find_pictures(tmp_path)
    assert listing.kind == "neu names"
    labels = dict(found(listing))
    assert labels["Cr_3.bmp"] == labels["crazing_12.jpg"] == "crazing"
    assert labels["RS_1.bmp"] == labels["rolled-in_scale_7.jpg"] == "rolled-in_scale"
    assert {labels[f"{short}_1.bmp"] for short in ("In", "Pa", "PS", "Sc")} == {
        "inclusion",
        "patches",
        "pitted_surface",
        "scratches",
    }
    assert kinds(listing) == [("holiday.jpg", UNLABELLED)]


def test_flat_ball_screw_names(tmp_path: Path) -> None:
    touch(tmp_path, "P(1).png", "N (2).png", "P_01_2009_crop_2.png", "N_KGT2-V-272.png", "Pitting.png")
    listing = find_pictures(tmp_path)
    assert listing.kind == "ball screw names"
    assert [label for _, label in found(listing)] == ["N", "N", "P", "P"]
    assert kinds(listing) == [("Pitting.png", UNLABELLED)]


def test_unlabelled_pictures_are_refused_unless_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, "one.png", "two.png")
    with pytest.raises(ClassError, match="cannot be told"):
        find_pictures(tmp_path)
    assert found(find_pictures(tmp_path, labelled=False)) == [("one.png", None), ("two.png", None)]


def test_pictures_beside_the_class_folders_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "pit/1.png", "loose.png")
    listing = find_pictures(tmp_path)
    assert found(listing) == [("pit/1.png", "pit")]
    assert kinds(listing) == [("loose.png", UNLABELLED)]


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NoPicturesError) as caught:
            find_pictures(folder)
        assert str(folder) in str(caught.value)
        assert caught.value.exit_code == 21


def test_classes_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "Pit/1.png", "pit/2.png", "good/3.png")
    with pytest.raises(ClassError, match="Pit, pit") as caught:
        find_pictures(tmp_path)
    assert caught.value.exit_code == 23


def test_with_the_federations_classes_spellings_are_one_and_strangers_stay_out(tmp_path: Path) -> None:
    touch(tmp_path, "Pit/1.png", "pit/2.png", "GOOD/3.png", "rust/4.png", "Ok/5.png")
    classes = ClassList(("good", "pit", "crack"), {"ok": "good"})
    listing = find_pictures(tmp_path, classes=classes)
    assert found(listing) == [
        ("GOOD/3.png", "good"),
        ("Ok/5.png", "good"),
        ("Pit/1.png", "pit"),
        ("pit/2.png", "pit"),
    ]
    assert kinds(listing) == [("pit", CLASS_SPELLING), ("rust/4.png", UNKNOWN_CLASS)]
    assert listing.classes is classes


def test_only_unknown_classes_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "rust/4.png")
    with pytest.raises(ClassError, match="rust"):
        find_pictures(tmp_path, classes=ClassList(("good", "pit")))


def test_one_class_is_too_few_to_train_with(tmp_path: Path) -> None:
    touch(tmp_path, "pit/1.png")
    listing = find_pictures(tmp_path)
    with pytest.raises(ClassError, match="too few classes"):
        listing.require()
    listing.require(classes=1)
    with pytest.raises(NoPicturesError, match="too few pictures"):
        listing.require(pictures=2, classes=1)


def test_a_folder_too_high_is_told_which_one_is_meant(tmp_path: Path) -> None:
    touch(tmp_path, "NEU/crazing/1.png", "NEU/patches/2.png")
    with pytest.raises(ClassError, match="name the folder NEU itself"):
        find_pictures(tmp_path).require()


def test_a_single_file_is_not_called_missing(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(NoPicturesError, match="is a file"):
        find_pictures(tmp_path / "a.png")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    outside = touch(tmp_path / "elsewhere", "secret.png")
    inside = touch(tmp_path / "data", "pit/1.png")
    (inside / "pit" / "link.png").symlink_to(outside / "secret.png")
    (inside / "linked").symlink_to(outside)
    listing = find_pictures(inside)
    assert found(listing) == [("pit/1.png", "pit")]
    assert kinds(listing) == [("linked", UNREADABLE), ("pit/link.png", OUTSIDE)]


def test_a_name_that_is_not_utf8_is_named_in_printable_form(tmp_path: Path) -> None:
    touch(tmp_path, "pit/1.png")
    (Path(os.fsdecode(bytes(tmp_path / "pit") + b"/ri\xdf.png"))).touch()
    listing = find_pictures(tmp_path)
    assert found(listing) == [("pit/1.png", "pit")]
    assert kinds(listing) == [("pit/ri?.png", UNREADABLE)]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "pit/1.png", "shut/2.png")
    (tmp_path / "shut").chmod(0)
    assert kinds(find_pictures(tmp_path)) == [("shut", UNREADABLE)]
    (tmp_path / "shut").chmod(0o700)


def test_a_path_too_long_or_with_odd_signs_is_missing_or_outside(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    path = manifest(
        tmp_path / "list.csv", "path,class", "a.png,pit", f"{'x' * 5000}.png,pit", "a.png/b.png,pit"
    )
    assert [kind for _, kind in kinds(find_pictures(path))] == [MISSING, MISSING]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_after_a_good_header_give_a_listing_or_a_data_error(tmp_path: Path, content: bytes) -> None:
    touch(tmp_path, "a.png")
    path = tmp_path / "list.csv"
    for start in (b"", b"path,class\na.png,pit\n"):
        path.write_bytes(start + content)
        try:
            listing = find_pictures(path)
        except DataError:
            continue
        assert all(picture.path.is_file() for picture in listing.pictures)


def test_a_csv_with_groups_and_further_columns(tmp_path: Path) -> None:
    root = touch(tmp_path / "pictures", "a.png", "b/c.png")
    path = manifest(
        tmp_path / "list.csv",
        "Path,class,group,split,component",
        "a.png,pit,g1,train,KGT1",
        "b/c.png,good,,,",
    )
    listing = find_pictures(root, manifest=path)
    first, second = listing.pictures
    assert (first.label, first.group, first.split, first.column("component")) == (
        "pit",
        "g1",
        "train",
        "KGT1",
    )
    assert (second.group, second.split, second.column("component")) == (None, None, None)
    assert first.column("group") == "g1"
    assert first.column("class") == first.column("label") == "pit"
    assert first.path == root / "a.png"
    assert find_pictures(path, root=root).pictures == listing.pictures


def test_a_csv_of_a_german_spreadsheet(tmp_path: Path) -> None:
    touch(tmp_path, "bilder/a.png")
    path = tmp_path / "liste.csv"
    path.write_bytes("\ufeffDatei;file;label\r\n1;bilder\\a.png;Riß\r\n".encode())
    assert found(find_pictures(path)) == [("bilder/a.png", "Riß")]


def test_rows_that_cannot_be_used_are_named_and_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "outside.png", "root/a.png", "root/b.png")
    path = manifest(
        tmp_path / "root" / "list.csv",
        "path,class",
        "a.png,pit",
        "../outside.png,pit",
        f"{tmp_path}/outside.png,pit",
        "gone.png,pit",
        "b.png,",
        "./a.png,good",
        ",pit",
    )
    listing = find_pictures(path)
    assert found(listing) == [("a.png", "pit")]
    assert sorted(kind for _, kind in kinds(listing)) == sorted(
        [OUTSIDE, OUTSIDE, MISSING, UNLABELLED, REPEATED, MISSING]
    )


@pytest.mark.parametrize(
    "lines",
    [
        ["path,kind", "a.png,pit"],
        ["class", "pit"],
        ["path,class,path", "a.png,pit,b.png"],
        ["path,class", "a.png,pit,extra"],
        ["path,class", '"a.png,pit'],
        [""],
    ],
)
def test_a_csv_that_is_no_list_is_refused_with_its_name(tmp_path: Path, lines: List[str]) -> None:
    touch(tmp_path, "a.png")
    path = manifest(tmp_path / "list.csv", *lines)
    with pytest.raises(ManifestError, match=r"list\.csv"):
        find_pictures(path)


def test_a_csv_of_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes("path,class\na.png,Riß\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="UTF-8"):
        find_pictures(path)


def test_a_list_of_another_format_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    for name in ("list.xlsx", "gone.csv"):
        with pytest.raises(ManifestError, match=name):
            find_pictures(tmp_path, manifest=tmp_path / name)


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    touch(tmp_path, "a.png", "b.png")
    table = arrow.table(
        {"path": ["a.png", "b.png"], "class": ["pit", "good"], "group": ["g", None], "shift": [1, 2]}
    )
    parquet.write_table(table, str(tmp_path / "list.parquet"))
    first, second = find_pictures(tmp_path / "list.parquet").pictures
    assert (first.label, first.group, first.column("shift")) == ("pit", "g", "1")
    assert (second.label, second.group) == ("good", None)


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ManifestError, match="Parquet"):
        find_pictures(tmp_path / "list.parquet")


def test_the_order_is_by_name_however_the_disk_lists_them(tmp_path: Path) -> None:
    folder_of(tmp_path, {"b": 3, "a": 2})
    names = [picture.name for picture in find_pictures(tmp_path).pictures]
    assert names == sorted(names)


@pytest.mark.real_data
@needs_neu
def test_the_neu_pictures_are_found_by_folder_and_by_list() -> None:
    by_folder = find_pictures(REAL_DATA / "neu")
    by_list = find_pictures(REAL_DATA / "neu", manifest=REAL_DATA / "neu_split.csv")
    assert found(by_folder) == found(by_list)
    assert len(by_list.pictures) == 1800
    assert len({picture.group for picture in by_list.pictures}) == 661
    assert not by_list.problems


@pytest.mark.real_data
@needs_ball_screws
def test_the_ball_screw_list_gives_the_components() -> None:
    listing = find_pictures(REAL_DATA / "ballscrew", manifest=REAL_DATA / "ballscrew_groups.csv")
    assert {picture.column("component") for picture in listing.pictures} == {"S01", "KGT1", "KGT2", "KGT3"}


def test_a_folder_of_nothing_but_links_that_lead_out_is_refused_by_the_first_of_them(tmp_path: Path) -> None:
    outside = touch(tmp_path / "elsewhere", "secret.png")
    inside = tmp_path / "data"
    (inside / "pit").mkdir(parents=True)
    (inside / "pit" / "link.png").symlink_to(outside / "secret.png")
    with pytest.raises(NoPicturesError, match=r"pit/link\.png: outside the root"):
        find_pictures(inside)
