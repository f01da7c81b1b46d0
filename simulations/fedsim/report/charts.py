"""The charts of a run and of a comparison, each a function from facts to a matplotlib figure.

A chart that has nothing to show is ``None``. Colours are those of ``palette`` only.
"""

from __future__ import annotations

from typing import Any, Optional, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedsim.report.canvas import calm, drawing, new_figure
from fedsim.report.model import Arm, Comparison, RunSummary
from fedsim.report.palette import LIGHT, SERIES
from fedsim.report.words import percent, size

Line = tuple[list[int], list[float]]
WIDTH = 9.0  # inches; the page scales it
MANY = 8  # plants; beyond that their lines are grey and only the ends of the range are named


def accuracy_by_round(run: RunSummary) -> Optional[Figure]:
    """The accuracy of the model after each round, at each plant and on the test pictures."""
    plants = plant_lines(run, "accuracy")
    tested = [(r.round, r.tested_accuracy) for r in run.rounds if r.tested_accuracy is not None]
    total: Line = ([r for r, _ in tested], [a for _, a in tested])
    title = "on the test pictures"
    if not tested:
        received = [(r.round - 1, r.received_accuracy) for r in run.rounds if r.received_accuracy is not None]
        total, title = ([r for r, _ in received], [a for _, a in received]), "all plants"
    return _lines(plants, total, title, "accuracy", percentages=True)


def loss_by_round(run: RunSummary) -> Optional[Figure]:
    """The loss of the model after each round, at each plant and on the test pictures."""
    tested = [(r.round, r.tested_loss) for r in run.rounds if r.tested_loss is not None]
    total: Line = ([r for r, _ in tested], [a for _, a in tested])
    return _lines(plant_lines(run, "loss"), total, "on the test pictures", "loss", percentages=False)


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
    numbers = [r.round for r in run.rounds]
    with drawing():
        figure = new_figure(WIDTH, 2.5)
        left, right = figure.subplots(1, 2)
        down, up = [r.bytes_down for r in run.rounds], [r.bytes_up for r in run.rounds]
        left.bar(numbers, down, width=0.7, color=SERIES[7], label="to the plants")
        left.bar(numbers, up, bottom=down, width=0.7, color=SERIES[0], label="from the plants")
        left.set_title("Bytes")
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
        left.legend(
            frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, fontsize=8
        )
        right.bar(numbers, [r.seconds for r in run.rounds], width=0.7, color=SERIES[0])
        right.set_title("Time")
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
        for axes in (left, right):
            _round_axis(axes, "round")
            axes.yaxis.set_major_locator(MaxNLocator(5))
            calm(axes)
    return figure


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


def _lines(
    plants: dict[str, Line], total: Line, title: str, unit: str, *, percentages: bool
) -> Optional[Figure]:
    if not plants and not total[0]:
        return None
    many = len(plants) > MANY
    with drawing():
        figure = new_figure(WIDTH, 3.2)
        axes = figure.subplots()
        ends: list[tuple[float, str, str]] = []
        for place, (name, (rounds, values)) in enumerate(plants.items()):
            colour = LIGHT["quiet"] if many else SERIES[place % len(SERIES)]
            axes.plot(
                rounds, values, color=colour, alpha=0.35 if many else 0.9, linewidth=1.1, **_dots(rounds)
            )
            ends.append((values[-1], name, colour))
        if many:
            ends = [min(ends), max(ends)]
        if total[0]:
            axes.plot(*total, color=LIGHT["ink"], linewidth=2.2, **_dots(total[0]))
            ends.append((total[1][-1], title, LIGHT["ink"]))
        lines = [*plants.values(), total]
        reach = max(rounds[-1] for rounds, _ in lines if rounds)
        values = [value for _, line in lines for value in line]
        low, high = min(values), max(values)
        room = max(high - low, 0.02 if percentages else 1e-6)
        bottom = 0.0 if not percentages else max(0.0, low - 0.08 * room)
        axes.set_ylim(bottom, min(1.0, high + 0.08 * room) if percentages else high + 0.08 * room)
        axes.set_ylabel(unit)
        if percentages:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, 0)))
        _round_axis(axes, "model after round (0 is the base model)")
        calm(axes)
        _name_ends(axes, ends, reach)
    return figure


def _dots(rounds: Sequence[int]) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3} if len(rounds) <= 12 else {}


def _name_ends(axes: Axes, ends: list[tuple[float, str, str]], reach: int) -> None:
    """Write each line's name beside its end, apart from the others."""
    low, high = axes.get_ylim()
    gap = (high - low) / 15
    ends = sorted(ends)
    places: list[float] = []
    for value, _, _ in ends:
        places.append(max(value, places[-1] + gap) if places else value)
    top = high
    for index in reversed(range(len(places))):  # push what stands above the top down again
        places[index] = min(places[index], top)
        top = places[index] - gap
    for place, (_, name, colour) in zip(places, ends):
        shown = name if len(name) <= 24 else name[:23] + "…"
        axes.annotate(
            shown, (reach, place), xytext=(8, 0), textcoords="offset points", va="center", color=colour,
            annotation_clip=False,
        )  # fmt: skip


def _round_axis(axes: Axes, label: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.set_xlabel(label)


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
