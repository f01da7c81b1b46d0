"""What docs/results.md measures: the command of each row, its goals, and the files that some of them need."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from fedspect.data.decode import read_picture
from fedspect.data.view_settings import ViewSettings
from fedspect.data.views import apply_view

NEU = "--data {data}/neu --manifest {data}/neu_split.csv"
BALLSCREW = "--data {data}/ballscrew --manifest {data}/ballscrew_groups.csv --good N"
COMMON = "--local-epochs 1 --set data.evaluation_share=0.0 --set training.views.views_per_picture=8 --evaluate-every 0"
FROZEN = f"--rounds 20 {COMMON}"
WHOLE = f"--rounds 20 --freeze-levels 0 {COMMON}"
LIGHT = (
    "--set training.views.views_per_picture=64 --set training.views.light_strength=0.5 "
    "--set training.views.contrast_strength=0.5 --set training.views.smallest_crop=0.85"
)
SCRATCH = f"--rounds 30 --freeze-levels 0 --scratch --size 112 {COMMON}"
SPLIT_LATE = f"--rounds 10 {COMMON} --set training.views.views_per_picture=1"
SMALL = f"--rounds 20 --size 112 {COMMON}"
COMPONENTS = ("S01", "KGT1", "KGT2", "KGT3")
COPIES = 3
"""Augmented copies of each picture in the paper's own protocol."""


@dataclass(frozen=True)
class Row:
    """One setting: which command, which of its arms counts, and what was hoped for."""

    title: str
    command: str
    arms: dict[str, str] = field(default_factory=dict)
    """By arm ("together", "federation", "alone"), the goal as text."""
    prepare: Callable[[Path, Path], None] | None = None
    """Makes the file or folder that the command calls {made}, from the data folder."""
    made: str = "none"
    how: str = ""
    """What {made} is, in words."""


def augmented(data: Path, made: Path) -> None:
    """NEU as the paper's protocol has it: every picture and its augmented copies in one folder, to be split
    afterwards, so that copies of one picture land on both sides.
    """
    settings = ViewSettings(views_per_picture=8 + COPIES)
    for path in sorted((data / "neu").glob("*/*.jpg")):
        folder = made / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.from_numpy(read_picture(path, channels=1))[None]
        for copy in range(COPIES + 1):
            image = apply_view(pixels, 0 if copy == 0 else 7 + copy, path.stem, settings)
            Image.fromarray(image[0].numpy()).save(folder / f"{path.stem}-{copy}.png")


def without(component: str) -> Callable[[Path, Path], None]:
    """The list of the ball screw pictures with one component as the test set."""

    def prepare(data: Path, made: Path) -> None:
        with (data / "ballscrew_groups.csv").open(encoding="utf-8", newline="") as source:
            rows = list(csv.DictReader(source))
        made.parent.mkdir(parents=True, exist_ok=True)
        with made.open("w", encoding="utf-8", newline="") as target:
            writer = csv.DictWriter(target, ["file", "label", "group", "component", "split"])
            writer.writeheader()
            for row in rows:
                kept = {name: row[name] for name in ("file", "label", "group", "component")}
                split = "test" if row["component"] == component else "train"
                writer.writerow({**kept, "split": split})

    return prepare


ROWS = {
    "neu-random-all-levels": Row(
        "NEU, random split, all levels",
        f"compare {NEU} --split random --arms pooled {WHOLE}",
        {"together": "99.4 %"},
    ),
    "neu-random": Row(
        "NEU, random split, first eight levels frozen, 4 plants, Dirichlet 0.5",
        f"compare {NEU} --split random --arms pooled,federated {FROZEN}",
        {"federation": "98 %", "together": ""},
    ),
    "neu-grouped": Row(
        "NEU, grouped split (no leak), first eight levels frozen, 4 plants, Dirichlet 0.5",
        f"compare {NEU} --split manifest --arms pooled,federated {FROZEN}",
        {"federation": "96.5 %, within 0.5 of all in one place", "together": "96.5 %"},
    ),
    **{
        f"neu-{encoding}": Row(
            f"NEU, grouped split, as above, changes sent as {encoding} (the default is int3)",
            f"compare {NEU} --split manifest --arms federated --encoding {encoding} {FROZEN}",
            {"federation": "report"},
        )
        for encoding in ("float32", "int8", "sparse-int8")
    },
    "neu-alone": Row(
        "NEU, grouped split, each plant alone",
        f"compare {NEU} --split manifest --arms alone {FROZEN}",
        {"alone": "federation 5 points above"},
    ),
    "ballscrew-grouped": Row(
        "ball screw, grouped split over all, all levels",
        f"compare {BALLSCREW} --split grouped --arms pooled {WHOLE}",
        {"together": "98 %"},
    ),
    "ballscrew-grouped-light": Row(
        "ball screw, grouped split over all, all levels, 64 views with strong light, contrast and crops",
        f"compare {BALLSCREW} --split grouped --arms pooled {WHOLE} {LIGHT}",
        {"together": "98 %"},
    ),
    "ballscrew-grouped-frozen": Row(
        "ball screw, grouped split over all, first eight levels frozen",
        f"compare {BALLSCREW} --split grouped --arms pooled {FROZEN}",
        {"together": "report"},
    ),
    "ballscrew-components": Row(
        "ball screw, four components as four plants, first eight levels frozen",
        f"compare {BALLSCREW} --split grouped --partition by-column --column component "
        f"--arms pooled,federated {FROZEN}",
        {"federation": "report", "together": "report"},
    ),
    **{
        f"ballscrew-without-{component.lower()}": Row(
            f"ball screw, component {component} held out as the test set, first eight levels frozen",
            f"compare --data {{data}}/ballscrew --manifest {{made}} --good N --split manifest "
            f"--plants {1 if component == 'S01' else 4} --arms pooled {FROZEN}",
            {"together": "report"},
            without(component),
            f"without-{component.lower()}.csv",
            f"ballscrew_groups.csv with a column split: test for component {component}, train for the others",
        )
        for component in COMPONENTS
    },
    "neu-paper-protocol": Row(
        f"NEU, augmented before splitting ({COPIES} copies of each picture), first eight levels frozen",
        f"compare --data {{made}} --split random --arms pooled {SPLIT_LATE}",
        {"together": "report the flattery"},
        augmented,
        "neu-augmented",
        f"a folder per class with each NEU picture and {COPIES} augmented copies of it (`augmented` of result_rows.py)",
    ),
    "neu-base-a": Row(
        "NEU, grouped split, frozen, 112 px; base A, short pre-training on X-SDD and synthetic",
        f"compare {NEU} --split manifest --arms pooled --base {{bases}}/a {SMALL}",
        {"together": "report"},
    ),
    "neu-base-a-without-xsdd": Row(
        "the same; base A, short pre-training on synthetic surfaces only",
        f"compare {NEU} --split manifest --arms pooled --base {{bases}}/a-without-xsdd {SMALL}",
        {"together": "report"},
    ),
    "neu-base-b": Row(
        "the same; base B, short pre-training on X-SDD and synthetic",
        f"compare {NEU} --split manifest --arms pooled --base {{bases}}/b {SMALL}",
        {"together": "report"},
    ),
    "neu-scratch": Row(
        "NEU, grouped split, from scratch at 112 px, all levels",
        f"compare {NEU} --split manifest --arms pooled {SCRATCH}",
        {"together": "report"},
    ),
    "neu-no-augmentation": Row(
        "NEU, grouped split, frozen, without augmentation",
        f"compare {NEU} --split manifest --arms pooled {FROZEN} --set training.views.views_per_picture=1",
        {"together": "report"},
    ),
    "neu-plain-cnn": Row(
        "NEU, grouped split, plain CNN from scratch at 112 px",
        f"compare {NEU} --split manifest --model plain-cnn --arms pooled {SCRATCH}",
        {"together": "report"},
    ),
    "neu-mobilenet-v3-small": Row(
        "NEU, grouped split, MobileNetV3-small from scratch at 112 px",
        f"compare {NEU} --split manifest --model mobilenet-v3-small --arms pooled {SCRATCH}",
        {"together": "report"},
    ),
}
