"""SVG and PNG export of a matplotlib figure; the SVG follows its page's colours.

Figures are made without pyplot, so nothing is kept between them. Text is never read as mathematics: a class
may be called ``$x_1$``.
"""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fedspect.files import replacing
from fedspect.report.palette import LIGHT

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": LIGHT["rule"],
    "axes.facecolor": "none",
    "axes.labelcolor": LIGHT["quiet"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": LIGHT["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
    "figure.facecolor": "none",
    "font.size": 9.0,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "xtick.color": LIGHT["rule"],
    "xtick.labelcolor": LIGHT["quiet"],
    "ytick.color": LIGHT["rule"],
    "ytick.labelcolor": LIGHT["quiet"],
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw within this block in the house's style."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of a size in inches (of 72 CSS points) whose parts keep out of each other's way."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def calm(axes: Axes, *, grid: str = "y") -> None:
    """Lines only where they help to read a value."""
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid)  # type: ignore[arg-type]
        axes.spines["left" if grid == "y" else "bottom"].set_visible(False)


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an ``<svg>`` element with ``description`` for those who cannot see it.

    ``name`` keeps the element's inner references apart from those of other figures of the page.
    """
    with drawing(), matplotlib.rc_context({"svg.hashsalt": name}):
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None})
    svg = target.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[A-Za-z]\w*?_\d+">', "<g>", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for variable, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{variable})")
    width, height = (float(side) * 72 for side in figure.get_size_inches())
    opening = f'<svg role="img" aria-label="{escape(description)}" viewBox="0 0 {width:g} {height:g}">'
    defs = re.sub(r"^<svg[^>]*>", "", svg, count=1)
    return Markup(opening + defs.strip())


def write_png(figure: Figure, path: Path) -> Path:
    """The figure as a PNG file on the light page's colour, at twice the resolution of a screen."""
    with drawing(), replacing(path) as file:
        figure.savefig(file, format="png", dpi=144, facecolor=LIGHT["page"], metadata={"Software": None})
    return path
