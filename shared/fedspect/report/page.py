"""Page frame: one HTML file, no script, nothing loaded from elsewhere.

Class names, file names, reasons and settings come from other people: everything is escaped, and a content
security policy in the page forbids what a mistake of ours would let through.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from fedspect.console import version
from fedspect.report import formatting as words
from fedspect.report.palette import DARK, LIGHT, as_css
from fedspect.report.svg import inline_svg

TEMPLATES = Path(__file__).parent / "templates"


def render(folder: Path, template: str, **content: Any) -> str:
    """A page from a template in ``folder``, which may extend ``page.html.j2`` and import ``parts.html.j2``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "points", "number", "count", "size", "duration", "moment"):
        environment.filters[name] = getattr(words, name)
    environment.filters["weakest"] = words.share_of
    return environment.get_template(template).render(
        light=Markup(as_css(LIGHT)), dark=Markup(as_css(DARK)), version=version(), **content
    )


def chart(figure: Optional[Figure], name: str, description: str) -> Optional[Markup]:
    """The chart as part of a page, if there is one."""
    return None if figure is None else inline_svg(figure, name, description)
