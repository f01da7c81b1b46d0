"""Colour palette of pages and charts, once for light and once for dark.

Charts are drawn in the light colours; in a page each of these is replaced by the CSS variable of its name, so
that a chart follows the page. That needs every light colour to be unique. Lines carry their names as well as
their colours, for people who do not tell these apart.
"""

from __future__ import annotations

LIGHT: dict[str, str] = {
    "page": "#fdfdfc",
    "card": "#f4f5f3",
    "ink": "#1d2226",
    "quiet": "#5d666e",
    "rule": "#d8dbd8",
    "accent": "#1f6f8b",
    "good": "#2e7d4f",
    "bad": "#b3452f",
    "series-1": "#2a7f9e",
    "series-2": "#c9772b",
    "series-3": "#6a8f3c",
    "series-4": "#8a63a6",
    "series-5": "#b8527a",
    "series-6": "#8c7a3e",
    "series-7": "#4a6fb5",
    "series-8": "#7b8388",
}

DARK: dict[str, str] = {
    "page": "#15181a",
    "card": "#1d2124",
    "ink": "#e8eaea",
    "quiet": "#9ba4aa",
    "rule": "#363c40",
    "accent": "#62b3cf",
    "good": "#6cc08f",
    "bad": "#e58a74",
    "series-1": "#5fb4d3",
    "series-2": "#e5a25c",
    "series-3": "#a3c673",
    "series-4": "#bd9bd6",
    "series-5": "#e28db0",
    "series-6": "#c9b676",
    "series-7": "#8eaee8",
    "series-8": "#a9b1b6",
}

SERIES = [colour for name, colour in LIGHT.items() if name.startswith("series-")]


def as_css(colours: dict[str, str]) -> str:
    """The declarations of a palette's variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
