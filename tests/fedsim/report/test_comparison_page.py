"""The page of a comparison, and what it leaves for the page of the run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable

import pytest

from fedsim.report import (
    Arm,
    Comparison,
    load_comparison,
    load_run,
    write_comparison,
    write_figures,
    write_report,
)
from fedsim.report.gains import gain_rows, recall_rows
from fedsim.synthetic import CLASSES
from fedspect.training.metrics import Evaluation


@pytest.fixture
def comparison(evaluation_of: Callable[[float], Evaluation]) -> Comparison:
    alone = {"plant-10": 0.85, "plant-1": 0.6, "plant-2": 0.75}
    return Comparison(
        federation=Arm(name="federation", evaluation=evaluation_of(0.95), pictures=300),
        together=Arm(name="together", evaluation=evaluation_of(1.0), pictures=300),
        alone=[
            Arm(name=name, evaluation=evaluation_of(share), pictures=100) for name, share in alone.items()
        ],
        counts={"plant-1": {"crazing": 7}, "plant-2": {}, "plant-10": {"crazing": 0, "patches": 4}},
        title="Three plants & <b>one</b>",
        command="fedsim compare --seed 3",
        seed=3,
    )


def text_of(path: Path) -> str:
    page = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", path.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).replace("\u202f", " ").split())


def test_the_page_ranks_each_way_of_training_on_the_same_pictures(
    tmp_path: Path, comparison: Comparison
) -> None:
    path = write_comparison(tmp_path, comparison)
    assert path == tmp_path / "comparison.html"
    text = text_of(path)
    assert "plant-1 alone 100 60.00 % +35.00" in text
    assert "plant-10 alone 100 85.00 % +10.00" in text
    assert text.index("plant-2 alone 100") < text.index("plant-10 alone 100")
    assert "all pictures in one place 300 100.00 % −5.00" in text
    assert "worst plant alone 60.0 % plant-1" in text
    assert "Three plants &amp; &lt;b&gt;one&lt;/b&gt;" in text
    assert (tmp_path / "figures" / "gains.png").stat().st_size > 1000


def test_the_table_of_classes_tells_what_each_plant_had_to_learn_from(comparison: Comparison) -> None:
    rows = {row.name: row for row in recall_rows(comparison)}
    assert list(rows) == list(CLASSES)
    assert [cell.pictures for cell in rows["crazing"].alone] == [0, 7, 0]
    assert rows["crazing"].federation == pytest.approx(0.95)
    unknown = recall_rows(comparison.model_copy(update={"counts": {}}))
    assert {cell.pictures for row in unknown for cell in row.alone} == {None}


def test_what_joining_gives_on_classes_a_plant_has_no_picture_of_is_told(comparison: Comparison) -> None:
    rows = {row.name: row for row in gain_rows(comparison)}
    assert rows["plant-1 alone"].lacking == (pytest.approx(0.6), pytest.approx(0.95))
    assert rows["plant-1 alone"].gain == pytest.approx(0.35)
    assert rows["all pictures in one place"].lacking is None
    everything = {"plant-1": dict.fromkeys(CLASSES, 3)}
    rows = {row.name: row for row in gain_rows(comparison.model_copy(update={"counts": everything}))}
    assert rows["plant-1 alone"].lacking is None


def test_a_comparison_is_read_back_and_shown_in_the_page_of_the_run_below_it(
    tmp_path: Path, comparison: Comparison, sample: Callable[..., Any]
) -> None:
    folder = sample(rounds=1).write()
    write_comparison(folder.parent, comparison)
    found = load_comparison(folder.parent)
    assert found is not None
    assert [arm.name for arm in found.alone] == ["plant-1", "plant-2", "plant-10"]
    assert found.federation == comparison.federation
    assert load_run(folder).comparison == found
    assert "What joining gained" in text_of(write_report(folder))
    assert "gains" in [path.stem for path in write_figures(folder)]


def test_a_federation_compared_with_nothing_still_has_a_page(tmp_path: Path, comparison: Comparison) -> None:
    bare = comparison.model_copy(update={"alone": [], "together": None, "counts": {}, "title": ""})
    assert "0 plants: alone and together" in text_of(write_comparison(tmp_path, bare))
    assert load_comparison(tmp_path / "nowhere") is None
