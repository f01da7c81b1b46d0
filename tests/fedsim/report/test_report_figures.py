"""The plots as files, and what their lines mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import matplotlib
import pytest
from PIL import Image

from fedserver.rounds.events import RunFinished
from fedserver.rounds.history import Evaluation
from fedsim.report import load_run, write_figures
from fedsim.report.charts import accuracy_by_round, confusion, last_confusions, plant_lines
from fedspect.files import append_line
from fedspect.report.palette import DARK, LIGHT
from fedspect.report.svg import drawing, inline_svg, new_figure

Make = Callable[..., Any]


def test_every_plot_is_a_png_that_opens(whole_run: Path) -> None:
    paths = write_figures(whole_run)
    assert [path.stem for path in paths] == [
        "accuracy", "loss", "confusion", "confusion-by-plant", "traffic", "mistakes",
    ]  # fmt: skip
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 200


def test_a_run_without_rounds_has_no_plots_of_rounds(sample: Make) -> None:
    folder = sample(rounds=0).write()
    assert [path.stem for path in write_figures(folder)] == ["confusion", "mistakes"]


def test_what_a_plant_reports_belongs_to_the_model_that_it_received(sample: Make) -> None:
    make = sample(rounds=4, per_class=1)
    folder = make.write()
    last = Evaluation.of(4, "c" * 64, make.record(4).plants)
    event = RunFinished(rounds=4, version="c" * 64, stopped_early=False, evaluation=last)
    append_line(folder / "metrics.jsonl", json.dumps(event.as_dict()))
    lines = plant_lines(load_run(folder), "accuracy")
    assert lines["plant-1"][0] == [0, 1, 2, 3, 4]
    assert lines["plant-2"][0] == [0, 1, 3, 4]  # lost in round 3
    # In round 4 an answer of plant-3 came a round late: it speaks of the model after round 2.
    assert lines["plant-3"][0] == [0, 1, 2, 2, 4]
    assert lines["plant-1"][1][0] == pytest.approx(make.curve(0, -0.7))


def test_matrices_that_are_not_square_are_left_out(sample: Make) -> None:
    run = load_run(sample(rounds=1, per_class=1).write())
    first = run.rounds[0].plants[0].model_copy(update={"confusion": [[1, 2]]})
    closed = run.rounds[0].model_copy(update={"plants": [first, *run.rounds[0].plants[1:]]})
    assert list(last_confusions(run.model_copy(update={"rounds": [closed]}))) == [
        "plant-2",
        "plant-3",
        "plant-4",
    ]


def test_a_text_in_a_chart_is_never_markup_or_mathematics() -> None:
    names = ["</svg><script>x</script>", "$\\frac{1}{2}$", "a & b"]
    figure = confusion([[1, 0, 0], [0, 2, 0], [1, 0, 3]], names)
    assert figure is not None
    svg = inline_svg(figure, "test", 'a "quoted" description')
    assert "<script" not in svg
    assert "$\\frac{1}{2}$" in svg
    assert 'aria-label="a &#34;quoted&#34; description"' in svg


def test_drawing_leaves_matplotlibs_settings_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    with drawing():
        inline_svg(new_figure(1, 1), "x", "nothing")
    assert dict(matplotlib.rcParams) == before


def test_a_chart_without_anything_to_show_is_none(sample: Make) -> None:
    run = load_run(sample(rounds=0).write())
    assert accuracy_by_round(run) is None
    assert confusion([], []) is None


def test_both_palettes_name_the_same_colours_and_each_light_colour_is_one_of_its_kind() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("name", "least"), [("ink", 7.0), ("quiet", 4.5), ("accent", 4.5), ("good", 4.5), ("bad", 4.5)]
)
def test_text_stands_out_from_the_page(palette: dict[str, str], name: str, least: float) -> None:
    pair = sorted((luminance(palette[name]), luminance(palette["page"])))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least
