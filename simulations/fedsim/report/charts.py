"""Charts of a run and of a comparison, each a function from facts to a matplotlib figure.

A chart that has nothing to show is ``None``. Colours are those of ``palette`` only.
"""

from __future__ import annotations

from typing import Optional, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from fedsim.report.model import Arm, Comparison, RunSummary
from fedspect.report.charts import WIDTH, Line, lines, traffic
from fedspect.report.formatting import percent
from fedspect.report.palette import LIGHT
from fedspect.report.svg import calm, drawing, new_figure


def accuracy_by_round(run: RunSummary) -> Optional[Figure]:
    """The accuracy of the model after each round, at each plant and on the test pictures."""
    plants = plant_lines(run, "accuracy")
    tested = [(r.round, r.tested_accuracy) for r in run.rounds if r.tested_accuracy is not None]
    total: Line = ([r for r, _ in tested], [a for _, a in tested])
    title = "on the test pictures"
    if not tested:
        received = [(r.round - 1, r.received_accuracy) for r in run.rounds if r.received_accuracy is not None]
        total, title = ([r for r, _ in received], [a for _, a in received]), "all plants"
    return lines(plants, total, title, "accuracy", percentages=True)


def loss_by_round(run: RunSummary) -> Optional[Figure]:
    """The loss of the model after each round, at each plant and on the test pictures."""
    tested = [(r.round, r.tested_loss) for r in run.rounds if r.tested_loss is not None]
    total: Line = ([r for r, _ in tested], [a for _, a in tested])
    return lines(plant_lines(run, "loss"), total, "on the test pictures", "loss", percentages=False)


def plant_lines(run: RunSummary, value: str) -> dict[str, Line]:
    """By plant, what it measured (``accuracy`` or ``loss``) of the model after each round.

    A plant measures what it receives, so what it reports in a round belongs to the model of the round before.
    """
    lines: dict[str, Line] = {}
    for name in run.plant_names:
        parts = [(r.round, part) for r in run.rounds for part in r.plants if part.plant == name]
        seen = [(number - 1 - part.late_by, getattr(part, value)) for number, part in parts]
        if run.closing is not None and name in run.closing.plants:
            seen.append((run.closing.round, run.closing.plants[name].get(value)))
        kept = sorted((number, float(measured)) for number, measured in seen if measured is not None)
        if kept:
            lines[name] = ([number for number, _ in kept], [measured for _, measured in kept])
    return lines


def traffic_by_round(run: RunSummary) -> Optional[Figure]:
    """What travelled in each round, and how long the round took."""
    if not run.rounds:
        return None
    return traffic(
        [r.round for r in run.rounds],
        [r.bytes_down for r in run.rounds],
        [r.bytes_up for r in run.rounds],
        [r.seconds for r in run.rounds],
    )


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Optional[Figure]:
    """True classes down, answered classes across; the shade is the share of the true class."""
    if not matrix:
        return None
    side = min(9.0, max(3.6, 0.62 * len(classes) + 1.6))
    with drawing():
        figure = new_figure(side, side)
        _matrix(figure.subplots(), matrix, classes, numbers=len(classes) <= 20)
    return figure


def confusion_by_plant(run: RunSummary, most: int = 12) -> Optional[Figure]:
    """The matrices that the plants reported last, each on its own evaluation pictures."""
    last = last_confusions(run)
    if not last:
        return None
    names, classes = list(last)[:most], run.facts.data.classes
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    with drawing():
        figure = new_figure(WIDTH, rows * WIDTH / 4 * 1.08)
        grid = figure.subplots(rows, max(columns, 4), squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(names):
                axes.set_axis_off()
                continue
            matrix = last[names[place]]
            _matrix(axes, matrix, classes, numbers=len(matrix) <= 8, labels=False)
            right, total = sum(row[i] for i, row in enumerate(matrix)), sum(map(sum, matrix))
            axes.set_title(f"{names[place]}: {percent(right / total if total else None)}", fontsize=9)
    return figure


def last_confusions(run: RunSummary) -> dict[str, list[list[int]]]:
    """By plant in natural order, the last square matrix it reported."""
    last = {p.plant: p.confusion for r in run.rounds for p in r.plants if p.confusion}
    found = {}
    for name in run.plant_names:
        matrix = last.get(name)
        if matrix and all(len(row) == len(matrix) for row in matrix):
            found[name] = matrix
    return found


def gains(comparison: Comparison) -> Optional[Figure]:
    """What each plant reaches alone, and what all reach together."""
    arms: list[Arm] = comparison.alone
    if not arms:
        return None
    joined = comparison.federation.evaluation.accuracy
    with drawing():
        figure = new_figure(WIDTH, 1.1 + 0.36 * len(arms))
        axes = figure.subplots()
        places = range(len(arms))
        alone = [arm.evaluation.accuracy for arm in arms]
        axes.hlines(places, alone, [joined] * len(arms), color=LIGHT["rule"], linewidth=3)
        axes.scatter(alone, places, color=LIGHT["quiet"], s=42, zorder=3)
        axes.scatter([joined] * len(arms), places, color=LIGHT["accent"], s=42, zorder=3)
        axes.axvline(joined, color=LIGHT["accent"], linewidth=0.8)
        _over(axes, joined, f"federation {percent(joined)}", LIGHT["accent"], row=0)
        if comparison.together is not None:
            together = comparison.together.evaluation.accuracy
            axes.axvline(together, color=LIGHT["quiet"], linewidth=0.8, linestyle=(0, (2, 2)))
            _over(axes, together, f"all in one place {percent(together)}", LIGHT["quiet"], row=1)
        axes.set_yticks(list(places), [f"{arm.name} alone" for arm in arms])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, 0)))
        calm(axes, grid="x")
        axes.spines["left"].set_visible(False)
    return figure


def _over(axes: Axes, place: float, text: str, colour: str, row: int) -> None:
    axes.annotate(
        text,
        (place, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4 + 12 * row),
        textcoords="offset points",
        ha="center",
        color=colour,
    )


def _matrix(
    axes: Axes, matrix: Sequence[Sequence[int]], classes: Sequence[str], *, numbers: bool, labels: bool = True
) -> None:
    count = len(matrix)
    for row, line in enumerate(matrix):
        total = sum(line) or 1
        for column, value in enumerate(line):
            colour = LIGHT["accent"] if row == column else LIGHT["bad"]
            cell = (column - 0.47, row - 0.47)
            axes.add_patch(_cell(cell, colour, 0.06 + 0.54 * value / total if value else 0.0))
            if numbers and value:
                axes.text(column, row, str(value), ha="center", va="center", fontsize=8 if labels else 6)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(labels is False)
    axes.tick_params(length=0)
    if labels:
        axes.set_xticks(range(count), classes, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), classes)
        axes.set_xlabel("answered")
        axes.set_ylabel("true")
    else:
        axes.set_xticks([])
        axes.set_yticks([])


def _cell(corner: tuple[float, float], colour: str, strength: float) -> Rectangle:
    return Rectangle(corner, 0.94, 0.94, facecolor=colour, alpha=strength, linewidth=0)
