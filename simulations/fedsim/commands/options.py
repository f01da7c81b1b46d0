"""Options of ``fedsim``'s commands; ``overrides.py`` says which setting each one stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional, get_args

import click
import typer

from fedserver.aggregation.registry import strategy_names
from fedsim.config import Backend, SimulatedFederationSettings, SimulationSettings, Split
from fedsim.partition import PARTITIONS
from fedspect.update.encoding import NAMES as ENCODINGS

DEFAULTS = SimulationSettings()
PICTURES, PLANTS, ROUNDS, MODEL, RUN = "Pictures", "Plants", "Rounds", "Model", "Run"


def with_default(text: str, default: object) -> str:
    """An option's help with the value that holds without it, as typer would write it of a default of its own."""
    return f"{text} [default: {default}]"


def _choice(names: Sequence[str]) -> click.Choice[str]:
    return click.Choice(list(names))


def _field(section: type, name: str) -> Sequence[str]:
    return get_args(section.model_fields[name].annotation)  # type: ignore[attr-defined]


Data = Annotated[
    Optional[Path],
    typer.Option(
        help="Folder of pictures, one folder per class below it, or a CSV or Parquet list.",
        show_default="synthetic surfaces",
        rich_help_panel=PICTURES,
    ),
]
Manifest = Annotated[
    Optional[Path],
    typer.Option(help="CSV or Parquet list: path, class, group, split ...", rich_help_panel=PICTURES),
]
Classes = Annotated[
    Optional[str],
    typer.Option(
        help="All classes, for instance pit=hole,scratch with another name for the first.",
        show_default="those that occur",
        metavar="NAME,NAME,...",
        rich_help_panel=PICTURES,
    ),
]
Good = Annotated[
    Optional[str],
    typer.Option(
        help="Classes that mean a good piece; escapes and false rejects are counted against them.",
        show_default="none, every class is a defect",
        metavar="NAME,...",
        rich_help_panel=PICTURES,
    ),
]
Threshold = Annotated[
    Optional[float],
    typer.Option(
        help=with_default("Probability at which the line would obey the model.", DEFAULTS.data.threshold),
        rich_help_panel=PICTURES,
    ),
]
BitDepth = Annotated[
    Optional[int],
    typer.Option(
        help="Bits of the camera that files of 16 bits hold: 10, 12 ...",
        show_default="as all pictures tell together",
        rich_help_panel=PICTURES,
    ),
]
SplitOption = Annotated[
    Optional[str],
    typer.Option(
        "--split",
        help=with_default("How the fixed test set is chosen.", DEFAULTS.data.split),
        click_type=_choice(get_args(Split)),
        rich_help_panel=PICTURES,
    ),
]
Plants = Annotated[
    Optional[int],
    typer.Option(help=with_default("How many plants.", DEFAULTS.plants.count), rich_help_panel=PLANTS),
]
PartitionOption = Annotated[
    Optional[str],
    typer.Option(
        "--partition",
        help=with_default("How training pictures are dealt to plants.", DEFAULTS.plants.partition),
        click_type=_choice(PARTITIONS),
        rich_help_panel=PLANTS,
    ),
]
Alpha = Annotated[
    Optional[float],
    typer.Option(
        help=with_default("Dirichlet: 0.1 is very uneven, 100 nearly even.", DEFAULTS.plants.alpha),
        rich_help_panel=PLANTS,
    ),
]
Column = Annotated[
    Optional[str],
    typer.Option(
        help=with_default(
            "by-column: a plant for each value of this column of the list.", DEFAULTS.plants.column
        ),
        rich_help_panel=PLANTS,
    ),
]
Rounds = Annotated[
    Optional[int],
    typer.Option(
        help=with_default("Rounds of the federation.", DEFAULTS.federation.rounds), rich_help_panel=ROUNDS
    ),
]
LocalEpochs = Annotated[
    Optional[int],
    typer.Option(
        help=with_default("Epochs at each plant in a round.", DEFAULTS.federation.local_epochs),
        rich_help_panel=ROUNDS,
    ),
]
Strategy = Annotated[
    Optional[str],
    typer.Option(
        help=with_default("How changes become one.", DEFAULTS.federation.strategy),
        click_type=_choice(strategy_names()),
        rich_help_panel=ROUNDS,
    ),
]
Encoding = Annotated[
    Optional[str],
    typer.Option(
        help=with_default("How changes travel.", DEFAULTS.federation.encoding),
        click_type=_choice(ENCODINGS.names()),
        rich_help_panel=ROUNDS,
    ),
]
BatchNorm = Annotated[
    Optional[str],
    typer.Option(
        help=with_default(
            "Running statistics: averaged, or each plant's own (FedBN).", DEFAULTS.federation.batch_norm
        ),
        click_type=_choice(_field(SimulatedFederationSettings, "batch_norm")),
        rich_help_panel=ROUNDS,
    ),
]
EvaluateEvery = Annotated[
    Optional[int],
    typer.Option(
        help=with_default(
            "Measure on the test set every so many rounds; 0: at the end only.",
            DEFAULTS.federation.evaluate_every,
        ),
        rich_help_panel=ROUNDS,
    ),
]
BackendOption = Annotated[
    Optional[str],
    typer.Option(
        "--backend",
        help=with_default(
            "local: in this process; ray: Flower's simulation on Ray.", DEFAULTS.federation.backend
        ),
        click_type=_choice(get_args(Backend)),
        rich_help_panel=ROUNDS,
    ),
]
Model = Annotated[
    Optional[str],
    typer.Option(
        help="cdnv2-a, cdnv2-b, cdnv2-c, plain-cnn or a torchvision classifier; without --base from scratch, "
        "unless it is the shipped base's.",
        show_default="the base model's",
        rich_help_panel=MODEL,
    ),
]
Base = Annotated[
    Optional[Path],
    typer.Option(help="Folder of a base model, or a-grey.", show_default="a-grey", rich_help_panel=MODEL),
]
Scratch = Annotated[
    Optional[bool],
    typer.Option("--scratch", help="Start from fresh weights, without a base.", rich_help_panel=MODEL),
]
FreezeLevels = Annotated[
    Optional[int],
    typer.Option(
        help="Frozen levels, which never train and never travel; 0 trains all.",
        show_default="the base model's: 8",
        rich_help_panel=MODEL,
    ),
]
Size = Annotated[
    Optional[int],
    typer.Option(
        help="Side in pixels that pictures are scaled to.",
        show_default="the base model's",
        rich_help_panel=MODEL,
    ),
]
Channels = Annotated[
    str,
    typer.Option(help="1 for grey, 3 for colour.", click_type=_choice(("1", "3")), rich_help_panel=MODEL),
]
Seed = Annotated[
    Optional[int],
    typer.Option(help=with_default("Same seed, same result.", DEFAULTS.seed), rich_help_panel=RUN),
]
Threads = Annotated[
    Optional[int],
    typer.Option(help="CPU threads of torch; 1 gives the same model bit for bit.", rich_help_panel=RUN),
]
Device = Annotated[
    Optional[str],
    typer.Option(help=with_default("auto, cpu, cuda or cuda:1.", "auto"), rich_help_panel=RUN),
]
Config = Annotated[
    Optional[Path],
    typer.Option(
        help="A TOML file of settings; options win over it. See `fedsim config`.", rich_help_panel=RUN
    ),
]
Set = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set",
        help="Any setting by its key, for instance training.learning_rate=0.002; repeatable.",
        metavar="KEY=VALUE",
        rich_help_panel=RUN,
    ),
]
