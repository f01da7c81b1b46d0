"""Comparison page: each plant alone, the federation, and all pictures in one place.

All are judged on the same test pictures, so a difference is that of the ways of training, not of pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedsim.report import charts
from fedsim.report import sentences as words
from fedsim.report.gains import gain_rows, recall_rows
from fedsim.report.model import Comparison, natural_order, weakest_class
from fedsim.report.page import chart, render
from fedsim.report.reading import COMPARISON
from fedspect.files import write_json, write_text
from fedspect.report.svg import write_png

PAGE = "comparison.html"


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write ``comparison.json``, ``comparison.html`` and ``figures/gains.png``; answer the page's path.

    Raises:
        StorageError: something cannot be written.

    """
    plants = sorted(comparison.alone, key=lambda arm: natural_order(arm.name))
    comparison = comparison.model_copy(update={"alone": plants})
    write_json(folder / COMPARISON, comparison.model_dump(mode="json"))
    figure = charts.gains(comparison)
    if figure is not None:
        write_png(figure, folder / "figures" / "gains.png")
    write_text(folder / PAGE, render("comparison.html.j2", **_content(comparison)))
    return folder / PAGE


def _content(comparison: Comparison) -> dict[str, Any]:
    joined = comparison.federation.evaluation
    return {
        "comparison": comparison,
        "title": comparison.title or f"{words.plural(len(comparison.alone), 'plant')}: alone and together",
        "sentence": words.gain_sentence(comparison),
        "numbers": _big_numbers(comparison),
        "gains": chart(
            charts.gains(comparison),
            "gains",
            f"Each plant's accuracy alone; the federation's is {words.percent(joined.accuracy)}; table below",
        ),
        "rows": gain_rows(comparison),
        "joined_weakest": weakest_class(joined),
        "recalls": recall_rows(comparison),
        "facts": [
            ("command", comparison.command),
            ("seed", str(comparison.seed)),
            *sorted(comparison.environment.items()),
        ],
    }


def _big_numbers(comparison: Comparison) -> list[dict[str, str]]:
    joined = comparison.federation.evaluation
    span = words.likely_range(round(joined.accuracy * joined.num_examples), joined.num_examples)
    note = f"likely between {words.percent(span[0])} and {words.percent(span[1])}" if span else ""
    numbers = [{"label": "federation", "value": words.percent(joined.accuracy), "note": note}]
    if comparison.alone:
        shares = sorted((arm.evaluation.accuracy, arm.name) for arm in comparison.alone)
        for label, (accuracy, name) in (("best plant alone", shares[-1]), ("worst plant alone", shares[0])):
            numbers.append({"label": label, "value": words.percent(accuracy), "note": name})
    if comparison.together is not None:
        numbers.append(
            {
                "label": "all in one place",
                "value": words.percent(comparison.together.evaluation.accuracy),
                "note": "what sharing the pictures would give",
            }
        )
    return numbers
