"""The command ``fedsim``: arguments and printing; what it does is in the modules beside it.

Those are imported where a command begins: torch and Flower take seconds, and ``--help`` needs neither.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from fedsim import options
from fedspect import console
from fedspect.console import JsonOption, make_app, run_app

if TYPE_CHECKING:
    from fedsim.compare import Compared
    from fedsim.run import Outcome

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
        "--resume", help="Go on with the run in --output, else the latest one.", rich_help_panel="Output"
    ),
]


def main() -> None:
    """The entry point."""
    run_app(app)


@app.command()
def run(
    data: options.Data = None,
    manifest: options.Manifest = None,
    split: options.SplitOption = None,
    plants: options.Plants = None,
    partition: options.PartitionOption = None,
    alpha: options.Alpha = None,
    column: options.Column = None,
    rounds: options.Rounds = None,
    local_epochs: options.LocalEpochs = None,
    strategy: options.Strategy = None,
    encoding: options.Encoding = None,
    batch_norm: options.BatchNorm = None,
    evaluate_every: options.EvaluateEvery = None,
    engine: options.EngineOption = None,
    model: options.Model = None,
    base: options.Base = None,
    scratch: options.Scratch = None,
    freeze_levels: options.FreezeLevels = None,
    size: options.Size = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
    device: options.Device = None,
    config: options.Config = None,
    set_: options.Set = None,
    output: Output = None,
    resume: Resume = False,
    json: JsonOption = False,
) -> None:
    """Let plants train one model together, and show what it reaches.

    Ends with a table and a folder that holds the model, every number and a report to look at.
    """
    given = dict(locals())
    from fedsim.layout import RunFolder
    from fedsim.live import LiveView
    from fedsim.run import resume_run, start_run

    if resume:
        path = options.folder_to_resume(output, RUNS, given, config, set_)
        settings = RunFolder(path).settings()
    else:
        path = output or RUNS / time.strftime("%Y-%m-%d_%H-%M-%S")
        settings = options.settings_of(given, config, set_)
    with LiveView(rounds=settings.federation.rounds, title=path.name, quiet=json) as view:
        if resume:
            outcome = resume_run(path, view=view)
        else:
            outcome = start_run(path, settings, view=view, command=_command())
    _show(outcome, as_json=json)


def _show(outcome: Outcome, *, as_json: bool) -> None:
    evaluation = outcome.evaluation
    if as_json:
        console.print_json(
            {
                "run": str(outcome.folder.path),
                "report": str(outcome.report),
                "model": str(outcome.folder.model),
                "rounds": outcome.rounds,
                "seconds": outcome.seconds,
                "left_out": outcome.prepared.left_out,
                "evaluation": evaluation.model_dump(mode="json", exclude={"mistakes"}),
            }
        )
        return
    rows = [
        [each.name, _percent(each.precision), _percent(each.recall), _percent(each.f1), each.support]
        for each in evaluation.classes
    ]
    mean = ["mean", _percent(evaluation.precision), _percent(evaluation.recall), _percent(evaluation.f1)]
    console.print_table(
        f"The model on {evaluation.num_examples} pictures that no plant has",
        ["class", "precision", "recall", "F1", "pictures"],
        [*rows, [*mean, evaluation.num_examples]],
    )
    typer.echo(f"accuracy  {_percent(evaluation.accuracy)}")
    line = evaluation.line
    if line.false_rejects is not None:
        typer.echo(f"escapes   {line.escapes} of {line.defects} defects at threshold {line.threshold:g}")
        typer.echo(f"rejects   {line.false_rejects} of {line.good} good ones")
    typer.echo(f"rounds    {outcome.rounds} in {outcome.seconds:.0f} s")
    typer.echo(f"model     {outcome.folder.model}")
    typer.echo(f"report    {outcome.report}")


@app.command()
def compare(
    data: options.Data = None,
    manifest: options.Manifest = None,
    split: options.SplitOption = None,
    plants: options.Plants = None,
    partition: options.PartitionOption = None,
    alpha: options.Alpha = None,
    column: options.Column = None,
    rounds: options.Rounds = None,
    local_epochs: options.LocalEpochs = None,
    strategy: options.Strategy = None,
    encoding: options.Encoding = None,
    batch_norm: options.BatchNorm = None,
    evaluate_every: options.EvaluateEvery = None,
    engine: options.EngineOption = None,
    model: options.Model = None,
    base: options.Base = None,
    scratch: options.Scratch = None,
    freeze_levels: options.FreezeLevels = None,
    size: options.Size = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
    device: options.Device = None,
    config: options.Config = None,
    set_: options.Set = None,
    arms: Annotated[
        str, typer.Option(help="Which ways of training, of these three.", rich_help_panel=options.RUN)
    ] = "alone,federated,pooled",
    output: Output = None,
    resume: Resume = False,
    json: JsonOption = False,
) -> None:
    """Show what joining gains each plant: alone, federated, and all pictures in one place.

    All on the same split, from the same base, for as many epochs, measured on the same test pictures.
    """
    given = dict(locals())
    from fedsim.compare import chosen_arms, compare
    from fedsim.layout import RunFolder
    from fedsim.live import LiveView

    chosen = chosen_arms(arms)
    if resume:
        path = options.folder_to_resume(output, RUNS, given, config, set_, below="federation")
        settings = RunFolder(path / "federation").settings()
    else:
        path = output or RUNS / time.strftime("%Y-%m-%d_%H-%M-%S-compare")
        options.check_new(path)
        settings = options.settings_of(given, config, set_)
    with LiveView(rounds=settings.federation.rounds, title=path.name, quiet=json) as view:
        compared = compare(path, settings, arms=chosen, view=view, command=_command())
    _show_comparison(compared, as_json=json)


def _show_comparison(compared: Compared, *, as_json: bool) -> None:
    from fedsim.compare import gains

    rows = gains(compared)
    if as_json:
        arms = {"federation": compared.federation, "together": compared.together}
        console.print_json(
            {
                "comparison": str(compared.folder),
                "report": None if compared.report is None else str(compared.report),
                "gains": [asdict(row) for row in rows],
                **{name: None if arm is None else arm.model_dump(mode="json") for name, arm in arms.items()},
                "alone": [arm.model_dump(mode="json") for arm in compared.alone],
            }
        )
        return
    if rows:
        console.print_table(
            "What joining gains each plant, on the same test pictures",
            ["plant", "pictures", "alone", "joined", "gain", "on classes it lacks", "on its weakest class"],
            [
                [
                    row.plant,
                    row.pictures,
                    _percent(row.alone),
                    _percent(row.joined),
                    _points(row.alone, row.joined),
                    f"{_percent(row.lacking_alone)} → {_percent(row.lacking_joined)}" if row.lacks else "–",
                    f"{row.weakest}: {_percent(row.weakest_alone)} → {_percent(row.weakest_joined)}",
                ]
                for row in rows
            ],
        )
    for name, arm in (("federation", compared.federation), ("all in one place", compared.together)):
        if arm is not None:
            typer.echo(f"{name:<18}{_percent(arm.evaluation.accuracy)} in {arm.seconds:.0f} s")
    if compared.report is not None:
        typer.echo(f"{'report':<18}{compared.report}")


@app.command()
def synth(
    output: Annotated[
        Path, typer.Argument(help="Folder to draw into, one folder per class.", show_default=False)
    ],
    per_class: Annotated[int, typer.Option(help="Pictures of each class.")] = 60,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 224,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 1,
    json: JsonOption = False,
) -> None:
    """Draw textured surfaces with six kinds of defects."""
    from fedsim.synthetic import CLASSES, draw_dataset

    count = per_class * len(CLASSES)
    with console.progress_bar("drawing", shown=not json) as progress:
        draw_dataset(output, per_class=per_class, size=size, seed=seed, progress=progress)
    if json:
        console.print_json({"folder": str(output), "classes": list(CLASSES), "pictures": count})
    else:
        typer.echo(f"{count} pictures of {', '.join(CLASSES)} in {output}")


@app.command()
def config(
    config: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Print every setting with its documentation and value, as a TOML file to start from."""
    from fedspect.toml import commented_toml

    settings = options.settings_of({}, config, set_)
    typer.echo(commented_toml(settings, heading=HEADING), nl=False)


def _command() -> str:
    return shlex.join(["fedsim", *sys.argv[1:]])


def _percent(share: Optional[float]) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _points(before: Optional[float], after: Optional[float]) -> str:
    return "–" if before is None or after is None else f"{100 * (after - before):+.1f}"
