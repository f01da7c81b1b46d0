"""Charts shared by reports of simulations and of headquarters, each a function from numbers to a figure."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedspect.report.formatting import percent, size
from fedspect.report.palette import LIGHT, SERIES
from fedspect.report.svg import calm, drawing, new_figure

Line = Tuple[List[int], List[float]]
"""Rounds and values."""
WIDTH = 9.0  # inches; the page scales it
MANY = 8  # plants; beyond that their lines are grey and only the ends of the range are named


def lines(
    plants: Dict[str, Line], total: Line, title: str, unit: str, *, percentages: bool
) -> Optional[Figure]:
    """A line a plant and a thick one for all, over the rounds; ``None`` when there is nothing to show."""
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
        drawn = [*plants.values(), total]
        reach = max(rounds[-1] for rounds, _ in drawn if rounds)
        values = [value for _, line in drawn for value in line]
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


def traffic(
    rounds: Sequence[int], down: Sequence[int], up: Sequence[int], seconds: Sequence[float]
) -> Figure:
    """What travelled in each round (bytes), and how long the round took."""
    with drawing():
        figure = new_figure(WIDTH, 2.5)
        left, right = figure.subplots(1, 2)
        left.bar(rounds, down, width=0.7, color=SERIES[7], label="to the plants")
        left.bar(rounds, up, bottom=down, width=0.7, color=SERIES[0], label="from the plants")
        left.set_title("Bytes")
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
        left.legend(
            frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, fontsize=8
        )
        right.bar(rounds, seconds, width=0.7, color=SERIES[0])
        right.set_title("Time")
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
        for axes in (left, right):
            _round_axis(axes, "round")
            axes.yaxis.set_major_locator(MaxNLocator(5))
            calm(axes)
    return figure
