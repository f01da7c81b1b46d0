"""Printed result of a run or a comparison: a table for people, or JSON for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Optional

import typer

from fedsim.run_folder import RunFolder
from fedspect import console
from fedspect.data.pictures import ABSENT_CLASS
from fedspect.files import read_json

if TYPE_CHECKING:
    from fedsim.compare import Compared
    from fedsim.run import RunResult
    from fedspect.training.metrics import InspectionMetrics

MOST_NAMED = 5  # files that were left out


def show_run(outcome: RunResult, *, as_json: bool) -> None:
    """The model on the test set, and where everything lies."""
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
                "twins_in_training": _twins(outcome),
                "evaluation": evaluation.model_dump(mode="json", exclude={"mistakes"}),
            }
        )
        return
    _name_problems(outcome.folder)
    if _twins(outcome):
        console.warn(
            f"{_twins(outcome)} of {evaluation.num_examples} test pictures show a surface that training shows "
            "too, so the figures flatter; --split grouped keeps such pictures apart"
        )
    rows = [
        [each.name, percent(each.precision), percent(each.recall), percent(each.f1), each.support]
        for each in evaluation.classes
    ]
    mean = ["mean", percent(evaluation.precision), percent(evaluation.recall), percent(evaluation.f1)]
    console.print_table(
        f"The model on {evaluation.num_examples} pictures that no plant has",
        ["class", "precision", "recall", "F1", "pictures"],
        [*rows, [*mean, evaluation.num_examples]],
    )
    typer.echo(f"accuracy  {percent(evaluation.accuracy)}")
    _show_line(evaluation.line)
    planned = outcome.folder.settings().federation.rounds
    early = f" of {planned}, stopped early," if outcome.rounds < planned else ""
    if outcome.prepared.understood:
        typer.echo(f"pictures  {outcome.prepared.understood}")
        if outcome.prepared.split == "manifest":
            typer.echo("test set  that of your own split; --split grouped deals anew")
    typer.echo(f"rounds    {outcome.rounds}{early} in {outcome.seconds:.0f} s")
    typer.echo(f"model     {outcome.folder.model}")
    typer.echo(f"report    {outcome.report}")


def _show_line(line: InspectionMetrics) -> None:
    """What the line would do if it obeyed the model."""
    typer.echo(f"escapes   {line.escapes} of {line.defects} defects at threshold {line.threshold:g}")
    if line.false_rejects is None:
        typer.echo("rejects   none to count: no class is said to be good (--good)")
    else:
        typer.echo(f"rejects   {line.false_rejects} of {line.good} good ones")


def show_comparison(compared: Compared, *, as_json: bool) -> None:
    """What joining gained each plant."""
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
    _name_problems(RunFolder(compared.folder / "federation"))
    if rows:
        console.print_table(
            "What joining gains each plant, on the same test pictures",
            ["plant", "pictures", "alone", "joined", "gain", "on classes it lacks", "on its weakest class"],
            [
                [
                    row.plant,
                    row.pictures,
                    percent(row.alone),
                    percent(row.joined),
                    points(row.alone, row.joined),
                    f"{percent(row.lacking_alone)} → {percent(row.lacking_joined)}" if row.lacks else "–",
                    f"{row.weakest}: {percent(row.weakest_alone)} → {percent(row.weakest_joined)}",
                ]
                for row in rows
            ],
        )
    for name, arm in (("federation", compared.federation), ("all in one place", compared.together)):
        if arm is not None:
            line = arm.evaluation.line
            typer.echo(
                f"{name:<18}{percent(arm.evaluation.accuracy)} in {arm.seconds:.0f} s, "
                f"escapes {line.escapes} of {line.defects}"
                + (
                    ""
                    if line.false_rejects is None
                    else f", rejects {line.false_rejects} of {line.good} good ones"
                )
            )
    if compared.report is not None:
        typer.echo(f"{'report':<18}{compared.report}")


def _name_problems(folder: RunFolder) -> None:
    """The first files that could not be used, and classes of which there are none."""
    problems = read_json(folder.problems)
    left_out = [row for row in problems if row["left_out"]]
    for row in left_out[:MOST_NAMED]:
        console.warn(f"left out {row['name']}: {row['kind']}, {row['detail']}")
    if len(left_out) > MOST_NAMED:
        console.warn(f"and {len(left_out) - MOST_NAMED} more, named in {folder.problems}")
    absent = [row["name"] for row in problems if row["kind"] == ABSENT_CLASS]
    if absent:
        console.warn(f"no pictures of {', '.join(absent)}: nothing was learned of it, and nothing tested")


def _twins(outcome: RunResult) -> int:
    """Test pictures of a surface of which training has pictures too."""
    return int(read_json(outcome.folder.test)["twins_in_training"])


def percent(share: Optional[float]) -> str:
    """0.972 as ``97.2 %``."""
    return "–" if share is None else f"{100 * share:.1f} %"


def points(before: Optional[float], after: Optional[float]) -> str:
    """The way from one share to another in points."""
    return "–" if before is None or after is None else f"{100 * (after - before):+.1f}"
