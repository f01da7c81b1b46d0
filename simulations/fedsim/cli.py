"""The ``fedsim`` command, put together from ``fedsim.commands``.

Those are imported where a command begins: torch and Flower take seconds, and ``--help`` needs neither.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from fedsim.commands import options
from fedsim.commands import output_folder as places
from fedsim.commands.overrides import Overrides, with_settings
from fedsim.commands.printing import percent, show_comparison, show_run
from fedspect import console
from fedspect.console import JsonOption, make_app, run_app
from fedspect.errors import SettingsError

RUNS = Path("runs")
HEADING = """Settings of fedsim. Options of the command line win over this file.
Relative paths are relative to it."""

app = make_app(
    "fedsim",
    "A whole federation on one machine: plants train one surface-inspection model together, each on its own "
    "pictures. `fedsim run` without options shows it on synthetic surfaces.",
)

Output = Annotated[
    Optional[Path],
    typer.Option(
        help="Folder for everything that comes out.",
        show_default="a new one below runs",
        rich_help_panel="Output",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run in --output, else the latest that is not finished.",
        rich_help_panel="Output",
    ),
]


def main() -> None:
    """The entry point."""
    run_app(app)


@app.command()
@with_settings
def run(
    given: Overrides,
    output: Output = None,
    resume: Resume = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Remove an earlier run in --output first.", rich_help_panel="Output"
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Let plants train one model together, and show what it reaches.

    Ends with a table and a folder that holds the model, every number and a report to look at.
    """
    if not resume:
        settings = given.settings()  # a slip of the pen is told before torch and Flower are loaded
    from fedserver.operations.live_view import LiveView
    from fedsim.run import resume_run, start_run
    from fedsim.run_folder import RunFolder

    if resume:
        if overwrite:
            raise SettingsError("--resume and --overwrite exclude each other", remedy="leave one out")
        path = places.folder_to_resume(output, RUNS, given)
        console.note(f"going on with {path}")
        settings = RunFolder(path).settings()
    else:
        path = output or RUNS / time.strftime("%Y-%m-%d_%H-%M-%S")
    with LiveView(rounds=settings.federation.rounds, title=path.name, quiet=json) as view:
        if resume:
            outcome = resume_run(path, view=view, data=given.options.get("data"))
        else:
            outcome = start_run(path, settings, view=view, command=_command(), overwrite=overwrite)
    show_run(outcome, as_json=json)


@app.command()
@with_settings
def compare(
    given: Overrides,
    arms: Annotated[
        Optional[str],
        typer.Option(
            help="Which ways of training, of these three.",
            show_default="alone,federated,pooled",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    output: Output = None,
    resume: Resume = False,
    json: JsonOption = False,
) -> None:
    """Show what joining gains each plant: alone, federated, and all pictures in one place.

    All on the same split, from the same base, for as many epochs, measured on the same test pictures.
    """
    if not resume:
        settings = given.settings()  # a slip of the pen is told before torch and Flower are loaded
    from fedserver.operations.live_view import LiveView
    from fedsim.compare import ARMS, arms_asked, chosen_arms, compare
    from fedsim.run_folder import RunFolder

    chosen = list(ARMS) if arms is None else chosen_arms(arms)
    if resume:
        path = places.folder_to_resume(output, RUNS, given, files=places.COMPARISON)
        console.note(f"going on with {path}")
        settings = RunFolder(path / "federation").settings()
        chosen = arms_asked(path) if arms is None else chosen
    else:
        path = output or RUNS / time.strftime("%Y-%m-%d_%H-%M-%S-compare")
        places.check_new(path, resumable=True)
    with LiveView(rounds=settings.federation.rounds, title=path.name, quiet=json) as view:
        compared = compare(path, settings, arms=chosen, view=view, command=_command())
    show_comparison(compared, as_json=json)


@app.command()
def data(
    source: Annotated[
        Path, typer.Argument(help="Folder of pictures, or a CSV or Parquet list.", show_default=False)
    ],
    manifest: options.Manifest = None,
    classes: options.Classes = None,
    bit_depth: options.BitDepth = None,
    html: Annotated[
        Optional[Path], typer.Option(help="Write one page with thumbnails here.", rich_help_panel="Output")
    ] = None,
    overlaps: Annotated[
        bool, typer.Option(help="Look for pictures of the same surface.", rich_help_panel=options.PICTURES)
    ] = True,
    json: JsonOption = False,
) -> None:
    """Look through pictures: what is there, what is damaged, what overlaps, what leaks between splits."""
    from fedspect.data.classes import named_classes
    from fedspect.data.site_report.show import show_site_report

    named = None if classes is None else named_classes(classes.split(","))
    show_site_report(
        source,
        manifest=manifest,
        classes=named,
        html=html,
        overlaps=overlaps,
        as_json=json,
        bit_depth=bit_depth,
    )


@app.command()
def pretrain(
    sources: Annotated[
        Optional[list[Path]],
        typer.Argument(help="Folders of pictures, or lists, to learn from.", show_default=False),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for the base model.", show_default=False, rich_help_panel="Output")
    ] = ...,  # type: ignore[assignment]
    synthetic: Annotated[
        int,
        typer.Option(help="Synthetic surfaces of each class beside them.", rich_help_panel=options.PICTURES),
    ] = 0,
    scenes: Annotated[
        int,
        typer.Option(help="Drawn scenes of each material and defect.", rich_help_panel=options.PICTURES),
    ] = 0,
    start: Annotated[
        Optional[Path],
        typer.Option(
            help="Base model to go on from.", show_default="fresh weights", rich_help_panel=options.MODEL
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="cdnv2-a, -b, -c or a classifier to compare with.", rich_help_panel=options.MODEL),
    ] = "cdnv2-a",
    size: Annotated[
        int, typer.Option(help="Side in pixels at which plants will use it.", rich_help_panel=options.MODEL)
    ] = 224,
    training_size: Annotated[
        Optional[int],
        typer.Option(help="Side to pre-train at.", show_default="as --size", rich_help_panel=options.MODEL),
    ] = None,
    channels: options.Channels = "1",
    epochs: Annotated[
        Optional[int],
        typer.Option(
            help=options.with_default("Passes over the pictures.", 120),
            min=2,
            max=10_000,
            rich_help_panel=options.RUN,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same result.", rich_help_panel=options.RUN)] = 1,
    threads: options.Threads = None,
    device: options.Device = None,
    config: Annotated[
        Optional[Path], typer.Option(help="TOML file of training settings.", rich_help_panel=options.RUN)
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", help="Any training setting.", metavar="KEY=VALUE", rich_help_panel=options.RUN),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a base model: learn groups from pictures of any surface, condense, and say what it reaches.

    A run that was stopped goes on after its last epoch when the same command is given again.
    """
    # Before torch is loaded: threads that spin while they wait made a step 17 times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from fedserver.operations.live_view import LiveView
    from fedsim.pretrain import make_base
    from fedspect.model.base import load_base
    from fedspect.settings import assigned, load_settings
    from fedspect.shipped_bases import base_folder
    from fedspect.training.base_recipe import CHECKPOINT_FILE, BaseRecipe, named_sources
    from fedspect.training.pretraining import PretrainingSettings

    places.check_new(output, besides=CHECKPOINT_FILE)
    given = {"epochs": epochs, "threads": threads, "device": device, **assigned(set_ or ())}
    plan = BaseRecipe(
        sources=named_sources(sources or []),
        architecture=model,
        size=size,
        training_size=training_size or size,
        channels=int(channels),
        settings=load_settings(config, PretrainingSettings, given),
        seed=seed,
        start=load_base(base_folder(start)) if start else None,
    )
    with LiveView(rounds=0, title=output.name, quiet=json) as view:
        summary = make_base(
            plan,
            output,
            synthetic_per_class=synthetic,
            scenes_per_class=scenes,
            stage=view.stage,
            command=_command(),
        )
    if json:
        console.print_json({"base": str(output), **summary.model_dump(mode="json", exclude={"epochs"})})
        return
    reached = summary.evaluation.accuracy if summary.evaluation else None
    typer.echo(f"reached   {percent(reached)} of {len(summary.classes)} classes on pictures held back")
    typer.echo(f"weights   {summary.parameters:,} parameters, {summary.bytes / 1e6:.1f} MB")
    typer.echo(f"hash      {summary.base_hash}")
    typer.echo(f"base      {output}")


@app.command("import-weights")
def import_weights_command(
    file: Annotated[
        Path, typer.Argument(help="The authors' checkpoint, .pth.tar or .pth.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option(help="Folder for the base model.", show_default=False, rich_help_panel="Output")
    ],
    size: Annotated[
        int, typer.Option(help="Side in pixels at which plants use it.", rich_help_panel=options.MODEL)
    ] = 224,
    channels: options.Channels = "3",
    json: JsonOption = False,
) -> None:
    """Make a base model of a CondenseNetV2 checkpoint of its authors, as trained or as converted."""
    from fedspect.model.import_weights import import_weights

    places.check_new(output)
    base = import_weights(file, output, made_by="fedsim import-weights", size=size, channels=int(channels))
    card = base.card
    if json:
        facts = {"architecture": card.architecture, "form": card.form, "classes": len(card.classes)}
        console.print_json({"base": str(output), "base_hash": card.content_hash, **facts})
        return
    typer.echo(f"weights   {card.architecture}, {len(card.classes)} classes, {card.channels} channels")
    typer.echo(f"hash      {card.content_hash}")
    typer.echo(f"base      {output}")


@app.command()
def synth(
    output: Annotated[
        Path, typer.Argument(help="Folder to draw into, one folder per class.", show_default=False)
    ],
    per_class: Annotated[int, typer.Option(help="Pictures of each class.")] = 60,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 224,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 1,
    scenes: Annotated[
        bool, typer.Option("--scenes", help="Many materials, each sound and with defects of its kind.")
    ] = False,
    channels: Annotated[
        int, typer.Option(min=1, max=3, help="1 for grey, 3 for colour; colour for scenes only.")
    ] = 1,
    json: JsonOption = False,
) -> None:
    """Draw textured surfaces with six kinds of defects, or scenes of many materials."""
    from fedsim.synthetic import CLASSES, SCENES, draw_dataset, draw_scenes

    if channels == 2 or (channels == 3 and not scenes):
        raise SettingsError(
            "these pictures cannot be drawn with that number of channels",
            seen=channels,
            accepted="1, or 3 with --scenes",
        )
    classes = list(SCENES if scenes else CLASSES)
    count = per_class * len(classes)
    with console.progress_bar("drawing", shown=not json) as progress:
        if scenes:
            draw_scenes(
                output, per_class=per_class, size=size, seed=seed, channels=channels, progress=progress
            )
        else:
            draw_dataset(output, per_class=per_class, size=size, seed=seed, progress=progress)
    if json:
        console.print_json({"folder": str(output), "classes": classes, "pictures": count})
    else:
        named = f"{len(classes)} scenes" if scenes else ", ".join(classes)
        typer.echo(f"{count} pictures of {named} in {output}")


@app.command()
def config(
    config: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Print every setting with its documentation and value, as a TOML file to start from."""
    from fedspect.toml_writer import commented_toml

    settings = Overrides({}, config, set_ or ()).settings()
    typer.echo(commented_toml(settings, heading=HEADING), nl=False)


def _command() -> str:
    return shlex.join(["fedsim", *sys.argv[1:]])
