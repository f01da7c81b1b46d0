from __future__ import annotations

from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
from PIL import Image

from fedclient.worker.settings import WorkerSettings
from fedclient.worker.training.setup import Site, pictures_of
from fedspect.data import checking


def put(path: Path, tone: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 20), tone, np.uint8)).save(path)


def test_pictures_that_were_labelled_on_the_line_train_too_whatever_the_plants_own_are(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        put(tmp_path / "data" / f"{name}.png", 60)
    (tmp_path / "data" / "list.csv").write_text("path,class\na.png,dark\nb.png,sound\n")
    home = tmp_path / "home"
    settings = WorkerSettings(
        plant="a",
        classes=["sound", "dark"],
        data=tmp_path / "data" / "list.csv",
        base=tmp_path / "base",
        state=home / "state",
        cache=home / "cache",
    )
    assert [each.name for each in pictures_of(settings).pictures] == ["a.png", "b.png"]
    put(home / "labelled" / "gone" / "review-1.png", 60)  # a class that the federation has no more
    assert len(pictures_of(settings).pictures) == 2
    put(home / "labelled" / "dark" / "review-2.png", 60)
    found = {each.name: (each.label, each.path) for each in pictures_of(settings).pictures}
    assert len(found) == 3
    place = home / "labelled" / "dark" / "review-2.png"
    assert found["labelled:dark/review-2.png"] == ("dark", place)


def test_a_plant_that_starts_again_decodes_only_pictures_that_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in range(6):
        put(tmp_path / "data" / ("dark" if place % 2 else "sound") / f"{place}.png", 20 * place)
    settings = WorkerSettings(
        plant="a",
        classes=["sound", "dark"],
        data=tmp_path / "data",
        base=tmp_path / "base",
        state=tmp_path / "home" / "state",
        cache=tmp_path / "home" / "cache",
    )
    first = Site(settings).report()
    decoded: List[str] = []
    decode = checking.decode_picture

    def told(content: bytes, path: Path) -> Any:
        decoded.append(path.name)
        return decode(content, path)

    monkeypatch.setattr(checking, "decode_picture", told)
    assert Site(settings).report() == first and not decoded
    put(tmp_path / "data" / "dark" / "new.png", 130)
    assert Site(settings).report()["counts"] == {"sound": 3, "dark": 4} and decoded == ["new.png"]
