from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from drawn_surfaces import REAL_DATA, encoded, folder_of, needs_neu, strip, write
from fedspect.data.classes import ClassList
from fedspect.data.inspection import inspect_pictures
from fedspect.data.site_report import page
from fedspect.data.site_report.page import render_page, write_page
from fedspect.data.site_report.report import SiteReport, site_report
from fedspect.data.sources import find_pictures


def report_on(root: Path, **options: object) -> SiteReport:
    classes = options.pop("classes", None)
    listing = find_pictures(root, classes=classes)  # type: ignore[arg-type]
    return site_report(listing, inspect_pictures(listing, overlaps=True), classes=classes)  # type: ignore[arg-type]


def words(report: SiteReport, level: str = "warning") -> str:
    return "\n".join(remark.what for remark in report.remarks if remark.level == level)


def leaking_plant(root: Path) -> Path:
    """Train and test share a strip; one of its crops has another class."""
    surface = strip(1, 120, 300)
    write(root / "train" / "a" / "left.png", surface[:, :120])
    write(root / "train" / "b" / "other.png", strip(2, 120, 120))
    write(root / "test" / "a" / "middle.png", surface[:, 60:180])
    write(root / "test" / "b" / "right.png", surface[:, 120:240])
    write(root / "test" / "b" / "apart.png", strip(3, 120, 120))
    return root


def test_a_healthy_plant_is_ok(tmp_path: Path) -> None:
    report = report_on(folder_of(tmp_path, {"a": 12, "b": 12}, side=64))
    assert report.level == "ok"
    assert words(report, "ok") == "24 pictures, nothing to complain of"
    assert [(row.name, row.pictures, row.groups, row.largest_group) for row in report.classes] == [
        ("a", 12, 12, 1),
        ("b", 12, 12, 1),
    ]
    assert [(s.width, s.height, s.channels, s.bits, s.pictures) for s in report.sizes] == [(64, 64, 1, 8, 24)]
    assert report.file_types == {".png": {"a": 12, "b": 12}}


def test_a_surface_on_both_sides_of_a_split_and_in_two_classes_is_shown(tmp_path: Path) -> None:
    report = report_on(leaking_plant(tmp_path))
    assert [(s.name, s.pictures, s.twins) for s in report.splits] == [("test", 3, 2), ("train", 2, 0)]
    (shared,) = report.shared_groups
    assert shared.splits == {"test": 2, "train": 1}
    assert shared.classes == {"a": 2, "b": 1}
    assert report.mixed_groups == report.shared_groups
    assert (report.groups, report.overlapping) == (3, 3)
    assert "2 of 3 test pictures show a surface of training too" in words(report)
    assert "1 surface is found under several classes" in words(report)


def test_missing_unknown_and_misspelt_classes_are_told(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a": 12, "A": 1, "b": 12, "rust": 1}, side=64)
    report = report_on(tmp_path, classes=ClassList(("a", "b", "c")))
    assert report.missing_classes == ["c"]
    assert "no pictures of c" in words(report)
    assert "A, a are all taken as a" in words(report)
    assert "1 unknown class" in words(report)
    assert report.left_out == 1


def test_a_class_that_is_nearly_one_of_the_federations_is_told_with_it(tmp_path: Path) -> None:
    classes = ClassList(("scratches", "patches"))
    report = report_on(folder_of(tmp_path, {"scratchs": 1, "patches": 2}), classes=classes)
    assert "'scratchs' is not among the classes; did you mean 'scratches'?" in words(report)


def test_groups_that_nobody_looked_for_are_not_counted(tmp_path: Path) -> None:
    listing = find_pictures(folder_of(tmp_path, {"a": 12, "b": 12}, side=64))
    report = site_report(listing, inspect_pictures(listing, overlaps=False))
    assert "nobody looked for pictures of the same surface" in words(report)
    (classes,) = [table for table in report.tables() if table.title == "Classes"]
    assert classes.rows == [("a", "12", "–", "–"), ("b", "12", "–", "–")]
    assert "Nobody looked" in render_page(report, listing)


def test_imbalance_and_too_little_are_told(tmp_path: Path) -> None:
    report = report_on(folder_of(tmp_path, {"a": 18, "b": 2}, side=32))
    assert report.imbalance == 9
    assert "9 times" in words(report)
    assert "too little to judge b by" in words(report)
    assert "smaller than 64 pixels" in words(report)


def test_one_class_only_is_a_failure(tmp_path: Path) -> None:
    report = report_on(folder_of(tmp_path, {"a": 2}))
    assert report.level == "failure"
    assert "one class only: a" in words(report, "failure")


def test_nothing_usable_is_a_failure_and_still_a_report(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_text("text")
    listing = find_pictures(tmp_path)
    inspection = inspect_pictures(listing)
    report = site_report(listing, inspection)
    assert words(report, "failure") == "no picture can be used"
    assert "a/1.png" in render_page(report, inspection)
    assert report.tables()[-1].rows[0][0] == "a/1.png"


def test_a_file_type_that_gives_the_class_away_is_told(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a": 12, "b": 12, "c": 12}, side=64)
    for number in range(12):
        write(tmp_path / "a" / f"{number}.jpg", strip(500 + number, 64, 64))
        (tmp_path / "a" / f"{number}.png").unlink()
    assert "12 of 12 .jpg files are a" in words(report_on(tmp_path))


def test_copies_and_conflicting_copies_are_counted(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "b" / "copy.png").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    report = report_on(tmp_path)
    assert report.duplicates == 1
    assert "1 file has an equal twin in another class" in words(report)


def test_far_from_square_is_worth_knowing(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a": 2, "b": 2}, side=64)
    write(tmp_path / "a" / "wide.png", strip(9, 64, 128))
    assert "1 picture is far from square" in words(report_on(tmp_path), "ok")


def test_the_json_is_the_report(tmp_path: Path) -> None:
    report = report_on(leaking_plant(tmp_path))
    assert SiteReport.model_validate_json(report.model_dump_json()) == report
    assert json.loads(report.model_dump_json())["format_version"] == 1


def test_tables_are_rows_of_text_and_bounded(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a": 1, "b": 1})
    for number in range(5):
        (tmp_path / "a" / f"bad{number}.png").write_text("text")
    tables = report_on(tmp_path).tables(most_problems=2)
    assert [table.title for table in tables] == [
        "Remarks",
        "Classes",
        "Sizes",
        "Files to look at (3 more are in the JSON report)",
    ]
    for table in tables:
        for row in table.rows:
            assert len(row) == len(table.columns)
            assert all(isinstance(cell, str) for cell in row)


def test_the_page_needs_nothing_beside_it_and_shows_pictures(tmp_path: Path) -> None:
    listing = find_pictures(leaking_plant(tmp_path / "pictures"))
    inspection = inspect_pictures(listing)
    path = tmp_path / "report.html"
    write_page(site_report(listing, inspection), inspection, path)
    text = path.read_text(encoding="utf-8")
    assert text.count('src="data:image/jpeg;base64,') >= 5
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "Surfaces on both sides of the split" in text
    assert "Surfaces under several classes" in text


def test_the_number_of_thumbnails_is_bounded(tmp_path: Path) -> None:
    counts = {f"class {number:02}": 3 for number in range(40)}
    listing = find_pictures(folder_of(tmp_path, counts, side=16))
    inspection = inspect_pictures(listing)
    assert render_page(site_report(listing, inspection), inspection).count("<img") <= page.SAMPLES


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    write(tmp_path / "<script>alert(1)<" / "x.png", strip(1, 32, 32))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "<img src=x>.png").write_text("text")
    listing = find_pictures(tmp_path)
    inspection = inspect_pictures(listing)
    text = render_page(site_report(listing, inspection), inspection)
    assert "<script>" not in text
    assert "<img src=x>" not in text


def test_a_picture_that_has_gone_is_left_out_of_the_page(tmp_path: Path) -> None:
    listing = find_pictures(folder_of(tmp_path, {"a": 1, "b": 1}))
    inspection = inspect_pictures(listing)
    (tmp_path / "a" / "0.png").unlink()
    assert render_page(site_report(listing, inspection), inspection).count("<img") == 1


def test_sixteen_bit_and_grey_stored_as_colour_appear_among_the_sizes(tmp_path: Path) -> None:
    write(tmp_path / "a" / "deep.png", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "rgb.png").write_bytes(encoded(np.zeros((64, 64, 3), np.uint8)))
    assert {(s.channels, s.bits) for s in report_on(tmp_path).sizes} == {(1, 16), (3, 8)}


@pytest.mark.real_data
@needs_neu
def test_the_neu_split_still_shares_surfaces_that_its_list_missed() -> None:
    listing = find_pictures(REAL_DATA / "neu", manifest=REAL_DATA / "neu_split.csv")
    some = tuple(picture for picture in listing.pictures if picture.label == "inclusion")
    listing = dataclasses.replace(listing, pictures=some)
    report = site_report(listing, inspect_pictures(listing))
    assert [(side.name, side.twins) for side in report.splits] == [("test", 0), ("train", 0)]
    thorough = site_report(listing, inspect_pictures(listing, overlaps=True))
    assert 5 < next(side.twins for side in thorough.splits if side.name == "test") < 60
