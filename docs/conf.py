"""Sphinx: these pages as a site, searchable and without a network. `make docs` builds it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Fedspect"
author = "Fedspect"
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
root_doc = "README"
html_theme = "furo"
html_title = "Fedspect"
html_copy_source = False
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["misc.highlighting_failure"]  # what commands print is no language

NAVIGATION = {
    "For people": [
        "operator",
        "plant-engineer",
        "integrator",
        "server-deployment",
        "jetson-deployment",
        "security",
    ],
    "Look-up": ["commands/README", "exit-codes/README", "glossary", "status"],
    "How it works": ["architecture", "*"],
    "To change it": ["extend/README", "decisions/README"],
}
"""The pages read well as files too, so what only Sphinx needs to make its navigation of is here."""


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Give the first page and the first of each folder what Sphinx makes its navigation of.

    Pages outside of this folder are named there without a link.
    """
    source[0] = re.sub(r"\[([^\]]+)\]\(\.\./[A-Z]+\.md\)", r"\1", source[0])
    if name == root_doc:
        for caption, pages in NAVIGATION.items():
            listed = "\n".join(pages)
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{listed}\n```\n"
    elif name.endswith("/README"):
        source[0] += "\n\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_navigation)
