"""The page of a comparison: each plant alone, the federation, and all pictures in one place.

All are judged on the same test pictures, so a difference is that of the ways of training, not of pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedsim.report import charts, words
from fedsim.report.canvas import write_png
from fedsim.report.model import Comparison, natural_order
from fedsim.report.page import chart, render
from fedsim.report.reading import COMPARISON
from fedspect.files import write_json, write_text

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


def recall_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """By class, the share that is found: by each plant alone, by the federation, by all in one place.

    A plant's cell tells also how many pictures of the class it had to learn from.
    """
    rows = []
    for place, figures in enumerate(comparison.federation.evaluation.classes):
        cells = [
            {
                "recall": arm.evaluation.classes[place].recall,
                "pictures": comparison.counts.get(arm.name, {}).get(figures.name, 0)
                if comparison.counts
                else None,
            }
            for arm in comparison.alone
        ]
        together = comparison.together
        rows.append(
            {
                "name": figures.name,
                "alone": cells,
                "federation": figures.recall,
                "together": together.evaluation.classes[place].recall if together else None,
            }
        )
    return rows
