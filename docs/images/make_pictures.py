"""Draws the pictures of these pages from the product itself, so that they stay true.

    python docs/images/make_pictures.py RUN

RUN is the folder of a `fedsim run`. A command's output is drawn by rich as SVG; the report by a headless Chromium,
which is named with --browser where it is not `chromium`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COLUMNS = 100
COMMANDS = {"fedclient-help.svg": "fedclient --help", "fedsim-help.svg": "fedsim --help"}
PRIVATE = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)


def draw_terminal(command: str, picture: Path) -> None:
    """What a command shows at a terminal of 100 columns."""
    name, *words = command.split()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1"}
    shown = subprocess.run(
        [str(Path(sys.executable).with_name(name)), *words],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout
    with Path(os.devnull).open("w") as nowhere:
        console = Console(
            record=True, width=COLUMNS, file=nowhere, color_system="truecolor", force_terminal=True
        )
        console.print(Text.from_ansi(f"$ {command}\n{shown.rstrip()}"))
    drawn = console.export_svg(title=command, unique_id=picture.stem)
    own = re.sub(
        r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL
    )  # rich has a picture fetch its letters from elsewhere
    picture.write_text(own, encoding="utf-8")


def draw_page(page: Path, picture: Path, browser: str) -> None:
    """The top of a page as a browser shows it."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                *PRIVATE.split(),
                f"--user-data-dir={profile}",
                "--window-size=1100,1400",
                f"--screenshot={picture.resolve()}",
                page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=600,
        )


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--browser", default="chromium")
    given = parser.parse_args()
    for name, command in COMMANDS.items():
        draw_terminal(command, HERE / name)
    draw_page(given.run / "report.html", HERE / "report.png", given.browser)


if __name__ == "__main__":
    main()
