"""Commands `review` and `drift`: the review queue, and the reference that drift is measured with.

No postponed annotations here: under Python 3.8 and 3.9 typer reads them as they stand.
"""

import time
from pathlib import Path
from typing import List, Optional

import numpy as np
import typer
from typing_extensions import Annotated

from fedclient.worker.line.decision_policy import DecisionPolicy
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.input_guard import InputGuard
from fedclient.worker.line.monitoring.drift import shown
from fedclient.worker.line.monitoring.reference_statistics import batch_statistics, joined, make_reference
from fedclient.worker.line.options import HomeOption
from fedclient.worker.line.prediction import files_of, predict
from fedclient.worker.line.review.review_queue import ReviewQueue
from fedclient.worker.line.settings import read_settings
from fedspect.console import JsonOption, note, print_json, print_table, progress_bar, stdout
from fedspect.data.sources import find_pictures
from fedspect.errors import ClassError, EngineError, NoPicturesError
from fedspect.files import read_json

review_app = typer.Typer(
    help="Pictures that wait for a person: the answers of which the line was not sure.", no_args_is_help=True
)
drift_app = typer.Typer(
    help="Whether the line's pictures are still such as the model learned from.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Make these commands of ``app``."""
    app.add_typer(review_app, name="review")
    app.add_typer(drift_app, name="drift")


@review_app.command("list")
def review_list(home: HomeOption, json: JsonOption = False) -> None:
    """Show the pictures that wait for a label, the oldest first."""
    line_home = LineHome(home)
    pictures = _review(line_home).list()
    rows = [
        {
            "name": each.name,
            "file": str(each.path),
            "heat_map": None if each.heat_map is None else str(each.heat_map),
            **each.facts,
        }
        for each in pictures
    ]
    if json:
        print_json(rows)
        return
    table = [
        (
            row["name"],
            row.get("class", ""),
            f"{float(row.get('confidence', 0)):.1%}",
            str(row.get("number", "")),
        )
        for row in rows
    ]
    columns = ("picture", "most probable", "confidence", "version")
    print_table("Waiting for a label", columns, table, caption=str(line_home.review))


@review_app.command("label")
def review_label(
    name: Annotated[str, typer.Argument(help="The picture's name, as `review list` shows it.")],
    label: Annotated[str, typer.Argument(metavar="CLASS", help="What it shows.")],
    home: HomeOption,
    to: Annotated[
        Optional[Path],
        typer.Option(help="The folder of pictures.", show_default="labelled/ in the plant's home"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Give a picture its class: it moves to the folder of that class, where training finds it."""
    line_home = LineHome(home)
    target = to or line_home.labelled
    deployment = line_home.deployments.current()
    if deployment is not None and label not in deployment.classes:
        raise ClassError("no such class", seen=label, accepted=", ".join(deployment.classes))
    place = _review(line_home).label(name, label, target)
    if json:
        print_json({"name": name, "class": label, "file": str(place)})
        return
    note(f"now {place}")


@review_app.command("discard")
def review_discard(
    name: Annotated[str, typer.Argument(help="The picture's name, as `review list` shows it.")],
    home: HomeOption,
    json: JsonOption = False,
) -> None:
    """Remove a picture that needs no label, such as one of an empty belt."""
    place = _review(LineHome(home)).discard(name)
    if json:
        print_json({"name": name, "removed": str(place)})
        return
    note(f"removed {place}")


@drift_app.command("init")
def drift_init(
    home: HomeOption,
    sources: Annotated[
        Optional[List[Path]],
        typer.Argument(
            metavar="[FILE|DIR]...",
            help="Pictures such as the line should see.",
            show_default="the plant's own",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Take pictures as the reference that the line's are compared with."""
    line_home = LineHome(home)
    settings = read_settings(line_home.line)
    deployment = line_home.deployments.current()
    if deployment is None:
        raise EngineError("the line has no engine yet", remedy="see `fedclient engines list`")
    files = files_of(sources) if sources else _plants_pictures(line_home)
    model = line_home.open(deployment, threads=settings.serving.threads)
    policy = DecisionPolicy(settings.verdicts, model.classes)
    seen, pixels = [], []
    with progress_bar("pictures") as progress:
        for each in predict(model, policy, files, progress):
            if each.verdict is not None and each.pixels is not None and each.answer is not None:
                pixels.append(each.pixels)
                seen.append(
                    batch_statistics(each.pixels[None], each.answer.features, each.answer.probabilities)
                )
    if not seen:
        raise NoPicturesError("no picture could be read", seen=files[0])
    reference = make_reference(joined(seen), model, deployment.base_hash, window=settings.drift.window)
    reference.save(line_home.reference)
    InputGuard.of(np.stack(pixels)).save(line_home.reference, model.preprocessing)
    if json:
        print_json({"pictures": reference.pictures, "limits": dict(reference.limits)})
        return
    note(f"{reference.pictures} pictures are the reference; a running line compares with it from now on")


@drift_app.command("show")
def drift_show(home: HomeOption, json: JsonOption = False) -> None:
    """Say how the line's last pictures compare with the reference."""
    line_home = LineHome(home)
    content = shown(line_home.drift_path, line_home.reference)
    if json:
        print_json(content)
        return
    since = ""
    if "since" in content:
        since = time.strftime(", since %Y-%m-%d %H:%M", time.localtime(float(content["since"])))
    console = stdout()
    console.print(f"{content['state']}{since}", highlight=False, markup=False)
    for reason in content.get("reasons", []):
        console.print(reason, highlight=False, markup=False)
    rows = [
        (name, f"{each['value']:.2f}", f"{each['limit']:.2f}")
        for name, each in dict(content.get("figures", {})).items()
    ]
    if rows:
        print_table("Distance from the reference", ("figure", "now", "alarm beyond"), rows)


def _review(home: LineHome) -> ReviewQueue:
    return ReviewQueue(home.review, read_settings(home.line).review)


def _plants_pictures(home: LineHome) -> List[Path]:
    """The plant's own pictures, from the folder or list that the node wrote down."""
    try:
        source = Path(str(read_json(home.folder / "plant.json")["data"]))
        return [each.path for each in find_pictures(source, labelled=False).pictures]
    except (FileNotFoundError, KeyError, TypeError) as error:
        raise NoPicturesError(
            "which pictures?",
            accepted="files and folders",
            remedy="name them; only a plant that has joined knows its own",
        ) from error
