"""Base models that ship with the package are found by name, and a folder of that name comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedspect.model.base import default_base, load_base
from fedspect.shipped_bases import DEFAULT, SHIPPED, base_folder


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_base_loads_and_is_of_the_kind_that_its_name_says(name: str) -> None:
    base = load_base(base_folder(Path(name)))
    size, kind = name.split("-")
    assert base.card.architecture == f"cdnv2-{size}"
    assert base.card.channels == {"grey": 1, "colour": 3}[kind]
    assert base.card.form == "condensed"


def test_the_default_is_one_of_them() -> None:
    assert load_base(SHIPPED[DEFAULT]).content_hash == default_base().content_hash


def test_a_folder_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).mkdir()
    assert base_folder(Path(DEFAULT)) == Path(DEFAULT)
    assert base_folder(Path("elsewhere")) == Path("elsewhere")


def test_all_that_ships_takes_at_most_20_megabytes() -> None:
    sizes = [path.stat().st_size for folder in SHIPPED.values() for path in folder.iterdir()]
    assert sum(sizes) <= 20_000_000
