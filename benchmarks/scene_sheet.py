"""The contact sheet of drawn scenes in docs/synthetic.md.

    python benchmarks/scene_sheet.py docs/images/scenes.jpg [--columns 14] [--size 96] [--seed 3]

One picture of each class of ``fedsim synth --scenes``, in the order of the classes, row by row.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from fedsim.synthetic import SCENES, draw_scene, picture_rng


def main() -> None:
    """Draw one picture of each class, and save the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--columns", type=int, default=14)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=3)
    given = parser.parse_args()
    rows = -(-len(SCENES) // given.columns)
    sheet = Image.new("RGB", (given.columns * given.size, rows * given.size))
    for place, kind in enumerate(SCENES):
        picture = draw_scene(kind, given.size, picture_rng(given.seed, kind, 0), channels=3)
        corner = (place % given.columns * given.size, place // given.columns * given.size)
        sheet.paste(Image.fromarray(picture), corner)
    sheet.save(given.output, quality=82)


if __name__ == "__main__":
    main()
