from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedclient.worker.line.home import LineHome
from fedclient.worker.line.review.review_queue import ReviewQueue
from fedclient.worker.line.settings import ReviewSettings
from fedspect.errors import NoPicturesError, SettingsError
from line_parts import grey, png, run


def test_a_picture_is_kept_as_it_came_with_what_the_model_thought(tmp_path: Path) -> None:
    review = ReviewQueue(tmp_path / "review", ReviewSettings())
    review.keep(png(grey(7)), {"class": "dark", "confidence": 0.6})
    (kept,) = review.list()
    assert kept.path.read_bytes() == png(grey(7)) and kept.facts["class"] == "dark"


@pytest.mark.parametrize("shape", [(1, 9, 8), (9, 8, 1), (3, 9, 8), (9, 8, 3)])
def test_pixels_are_kept_as_png(tmp_path: Path, shape: tuple[int, ...]) -> None:
    review = ReviewQueue(tmp_path, ReviewSettings())
    review.keep(np.full(shape, 40, np.uint8), {})
    image = Image.open(review.list()[0].path)
    assert image.size == (8, 9) and image.mode == ("RGB" if 3 in shape else "L")


def test_the_oldest_go_when_the_folder_is_full(tmp_path: Path) -> None:
    review = ReviewQueue(tmp_path, ReviewSettings(most_pictures=3))
    for tone in range(6):
        review.keep(png(grey(tone)), {})
        for path in tmp_path.glob("2*"):  # so that names are in order within one second
            path.rename(path.with_name(f"1{tone}" + path.name[2:]))
    assert len(review.list()) == 3 and len(list(tmp_path.iterdir())) == 6


def test_nothing_is_kept_where_none_may_be(tmp_path: Path) -> None:
    ReviewQueue(tmp_path / "review", ReviewSettings(most_pictures=0)).keep(png(grey(1)), {})
    assert not (tmp_path / "review").exists()


def test_a_label_moves_the_picture_to_its_class(tmp_path: Path) -> None:
    review = ReviewQueue(tmp_path / "review", ReviewSettings())
    review.keep(png(grey(7)), {})
    name = review.list()[0].name
    place = review.label(name, "dark", tmp_path / "data")
    assert place.parent == tmp_path / "data" / "dark" and place.read_bytes() == png(grey(7))
    assert not review.list() and not list((tmp_path / "review").iterdir())
    with pytest.raises(NoPicturesError, match="no such picture"):
        review.label(name, "dark", tmp_path / "data")
    with pytest.raises(SettingsError, match="not the name of a class"):
        review.label(name, "../dark", tmp_path / "data")


def test_the_commands_list_and_label(home: LineHome, tmp_path: Path) -> None:
    review = ReviewQueue(home.review, ReviewSettings())
    review.keep(png(grey(7)), {"class": "dark", "confidence": 0.61, "number": 1})
    (row,) = json.loads(run(home, "review", "list", "--json").stdout)
    assert row["class"] == "dark"
    assert "dark" in run(home, "review", "list").stdout
    refused = run(home, "review", "label", row["name"], "drak", "--to", str(tmp_path / "data"))
    assert refused.returncode == 23 and not (tmp_path / "data").exists()
    done = run(home, "review", "label", row["name"], "dark", "--to", str(tmp_path / "data"))
    assert done.returncode == 0 and len(list((tmp_path / "data" / "dark").iterdir())) == 1


def test_a_picture_is_labelled_into_the_plants_home_whatever_its_data_is(
    home: LineHome, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text("path,class\n")
    (home.folder / "plant.json").write_text(json.dumps({"data": str(tmp_path / "list.csv")}))
    ReviewQueue(home.review, ReviewSettings()).keep(png(grey(7)), {})
    (row,) = json.loads(run(home, "review", "list", "--json").stdout)
    done = run(home, "review", "label", row["name"], "dark", "--json")
    assert done.returncode == 0, done.stderr
    place = Path(json.loads(done.stdout)["file"])
    assert place.parent == home.folder / "labelled" / "dark" and place.read_bytes() == png(grey(7))


def test_what_needs_no_label_is_discarded(home: LineHome) -> None:
    review = ReviewQueue(home.review, ReviewSettings())
    review.keep(png(grey(7)), {})
    name = review.list()[0].name
    done = run(home, "review", "discard", name, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["name"] == name
    assert not list(home.review.iterdir())
    assert run(home, "review", "discard", name).returncode == 21
