"""The page of a run: complete, self-contained, escaped, readable without eyes."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from fedsim.report import load_run, write_report
from fedsim.report.page import big_numbers, confused_pairs, without_comments
from fedspect.errors import ReadOnlyError, StorageError
from fedspect.files import write_json

Make = Callable[..., Any]
VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}
HOSTILE = "<script>alert(1)</script>\"' onload=x & $\\frac{1}$"


class Page(HTMLParser):
    """The elements of a page, and whether they are nested as they should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Optional[str]]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, Optional[str]]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def html(whole_run: Path) -> str:
    return write_report(whole_run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole_page(html: str) -> Page:
    return Page(html)


def test_a_page_has_every_section_and_what_it_is_about(whole_page: Page) -> None:
    page = whole_page
    text = " ".join(" ".join(page.text).split())
    for heading in (
        "Each class",
        "Round by round",
        "What is taken for what",
        "The worst mistakes",
        "What travelled",
    ):
        assert heading in text
    assert "4 plants trained one model together in 6 rounds." in text
    assert "no answer within 600 s" in text
    assert "no picture of scratches at this plant" in text
    assert "fedsim run --plants 4" in text
    targets = {str(a.get("href"))[1:] for a in page.all("a")}
    assert targets == {str(s.get("id")) for s in page.all("section")}


def test_a_page_is_one_file_without_scripts_that_loads_nothing(whole_page: Page, html: str) -> None:
    page = whole_page
    assert not page.all("script")
    assert not page.all("link")
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value is not None
                assert value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


def test_settings_are_shown_without_their_comments() -> None:
    toml = "# heading\n\nseed = 1\n# unset =\n\n[data]\n  # about\nsplit = 'grouped'  # kept\n"
    assert without_comments(toml) == "seed = 1\n\n[data]\nsplit = 'grouped'  # kept"


def test_names_and_reasons_of_other_people_are_text_and_nothing_else(sample: Make) -> None:
    classes = (HOSTILE, "b</svg><img src=x>", "c]]>", "$x_1$", "{{ 7 * 7 }}", "ü" * 60)
    folder = sample(
        classes=classes, title=HOSTILE, reason=HOSTILE, remark=HOSTILE, rounds=2, plants=3
    ).write()
    (folder / "config.toml").write_text("# a comment\na = '</pre><script>alert(2)</script>'")
    page = page_of(folder)
    assert not page.all("script")
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert all(str(image["src"]).startswith("data:image/png") for image in page.all("img"))
    text = "".join(page.text)
    assert text.count(HOSTILE) >= 3
    assert "a = '</pre><script>alert(2)</script>'" in text
    assert "a comment" not in text
    assert "{{ 7 * 7 }}" in text


def test_every_picture_and_chart_is_described_and_tables_have_headers(whole_page: Page) -> None:
    page = whole_page
    assert page.all("img")
    assert all(image.get("alt") for image in page.all("img"))
    charts = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(charts) == len(page.all("svg")) == 4
    assert all(svg.get("aria-label") for svg in charts)
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1


def test_charts_follow_the_pages_colours(html: str) -> None:
    text = html
    charts = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "var(--ink)" in charts
    assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", charts)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_the_same_run_gives_the_same_page(whole_run: Path, html: str) -> None:
    assert write_report(whole_run).read_text(encoding="utf-8") == html


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_a_run_that_is_not_done_has_a_page_that_says_so(sample: Make, state: str) -> None:
    folder = sample(state=state, rounds=2, per_class=1, plants=2).write()
    (folder / "evaluation.json").unlink()
    text = "".join(page_of(folder).text)
    assert "2 of 6 rounds" in text
    assert "The worst mistakes" not in text


def test_a_run_that_has_only_begun_has_a_page(sample: Make) -> None:
    folder = sample(rounds=0, state="running").write()
    (folder / "evaluation.json").unlink()
    assert "0 of 6 rounds done" in "".join(page_of(folder).text)


def test_a_picture_that_is_gone_or_lies_outside_is_named_but_not_shown(sample: Make, tmp_path: Path) -> None:
    folder = sample(rounds=0).write()
    content = json.loads((folder / "evaluation.json").read_text())
    wrong = [row for row in content["predictions"] if row["true"] != row["predicted"]]
    (folder / "pictures" / wrong[0]["name"]).unlink()
    (folder / "pictures" / wrong[1]["name"]).write_bytes(b"not a picture")
    outside = tmp_path / "outside.png"
    outside.write_bytes((folder / "pictures" / wrong[2]["name"]).read_bytes())
    wrong[2]["name"] = "../../outside.png"
    write_json(folder / "evaluation.json", content)
    page = page_of(folder)
    assert len(page.all("img")) == len(wrong) - 3
    assert "".join(page.text).count("picture not found") == 3
    assert "../../outside.png" in "".join(page.text)


def test_the_surest_wrong_answers_come_first_and_a_heat_map_beside_them(sample: Make) -> None:
    folder = sample(rounds=0).write()
    content = json.loads((folder / "evaluation.json").read_text())
    wrong = sorted(
        (r for r in content["predictions"] if r["true"] != r["predicted"]), key=lambda r: -r["confidence"]
    )
    wrong[0]["heat_map"] = "pictures/" + wrong[0]["name"]
    write_json(folder / "evaluation.json", content)
    images = page_of(folder).all("img")
    assert [wrong[0]["name"] in str(image["alt"]) for image in images[:3]] == [True, True, False]
    assert str(images[1]["alt"]).startswith("Where the model looked")


def test_escapes_and_false_rejects_are_on_top_where_a_class_is_good(whole_run: Path, sample: Make) -> None:
    run = load_run(sample(good_classes=("crazing",), rounds=0).write())
    numbers = {each["label"]: each["value"] for each in big_numbers(run)}
    assert run.final is not None
    assert numbers["escapes"] == str(run.final.line.escapes)
    assert numbers["false rejects"] == str(run.final.line.false_rejects)
    assert "escapes" not in {each["label"] for each in big_numbers(load_run(whole_run))}


def test_many_classes_are_listed_by_confused_pairs_instead_of_a_huge_matrix(sample: Make) -> None:
    folder = sample(
        classes=tuple(f"class {number}" for number in range(24)), per_class=3, plants=2, rounds=1
    ).write()
    run = load_run(folder)
    assert run.final is not None
    pairs = confused_pairs(run.final)
    assert [pair["pictures"] for pair in pairs] == sorted((pair["pictures"] for pair in pairs), reverse=True)
    assert sum(pair["pictures"] for pair in pairs) == sum(prediction.wrong for prediction in run.predictions)
    assert "most often taken for each other" in "".join(page_of(folder).text)


def test_many_plants_and_many_rounds_stay_readable(sample: Make) -> None:
    folder = sample(plants=40, rounds=70, per_class=1).write()
    path = write_report(folder)
    assert path.stat().st_size < 3_000_000
    assert "10 rounds between are left out here" in " ".join("".join(Page(path.read_text()).text).split())


def test_a_page_that_cannot_be_written_is_a_storage_error(
    sample: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sample(rounds=0, per_class=1).write()
    (folder / "report.html").mkdir()
    with pytest.raises(StorageError):
        write_report(folder)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(ReadOnlyError, match=re.escape(str(folder / "report.html"))):
        write_report(folder)
