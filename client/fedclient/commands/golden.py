"""`fedclient golden`: the plant's own pictures that a new engine must answer well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from fedclient.commands.options import HomeOption
from fedclient.node.home import PlantHome
from fedspect.console import JsonOption, note, print_json, print_table, progress_bar, warn
from fedspect.errors import WorkspaceError

if TYPE_CHECKING:
    from fedclient.worker.golden import GoldenSet

app = typer.Typer(
    name="golden",
    help="The golden set: pictures that never train and that a new engine must answer well.",
    no_args_is_help=True,
)


def add_to(parent: typer.Typer) -> None:
    """Make `golden` a command of ``parent``."""
    parent.add_typer(app)


@app.command()
def init(
    limit: Annotated[
        Optional[int], typer.Option(min=1, help="Most pictures of the held-out share.", show_default="500")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Take the held-out share of the plant's pictures into the golden set; what was added by hand stays."""
    from fedclient.commands.asking import ask_worker

    plant_home = PlantHome(home)
    plant_home.membership()
    with progress_bar("pictures", shown=not json) as bar:
        reply = ask_worker(
            plant_home,
            "fedclient.worker.golden",
            [] if limit is None else ["--limit", str(limit)],
            lambda stage, done, total: bar(done, total),
        )
    golden = _golden(plant_home)
    if json:
        print_json({**reply, **_facts(golden, plant_home)})
        return
    note(f"{reply['new']} pictures are new; the held-out share has {reply['share']}")
    if "golden" in reply["given_up"]:
        note("there are too few pictures for a held-out share: add some by hand, `fedclient golden add`")
    _table(golden, plant_home)


@app.command()
def add(
    files: Annotated[list[Path], typer.Argument(help="Pictures that never trained.")],
    label: Annotated[str, typer.Option("--class", help="What they show.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Add pictures by hand; they will never train, also when they turn up in the plant's folder later."""
    from fedclient.worker.golden.choosing import add_by_hand
    from fedspect.data.classes import ClassList

    plant_home = PlantHome(home)
    membership = plant_home.membership()
    golden = _golden(plant_home)
    classes = ClassList(tuple(membership.classes), membership.aliases)
    added = add_by_hand(golden, files, label, classes=classes, state=plant_home.state)
    if json:
        print_json({"added": [each.model_dump() for each in added], **_facts(golden, plant_home)})
        return
    note(f"{len(added)} pictures of class {added[0].label} are golden")
    _table(golden, plant_home)


@app.command()
def remove(
    pictures: Annotated[list[str], typer.Argument(help="Their names, or the beginning of their hashes.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Take pictures out of the set for good; they still never train."""
    plant_home = PlantHome(home)
    golden = _golden(plant_home)
    gone = golden.remove(pictures)
    if json:
        print_json({"removed": [each.model_dump() for each in gone], **_facts(golden, plant_home)})
        return
    note(f"{len(gone)} pictures are no longer golden")
    _table(golden, plant_home)


@app.command()
def show(
    html: Annotated[Optional[Path], typer.Option(help="Write one page with thumbnails here.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the golden set."""
    plant_home = PlantHome(home)
    golden = _golden(plant_home)
    if html is not None:
        from fedclient.worker.golden.page import write_page

        write_page(golden, html)
        note(f"written to {html}")
    if json:
        pictures = [each.model_dump() for each in golden.pictures()]
        print_json({"pictures": pictures, **_facts(golden, plant_home)})
        return
    _table(golden, plant_home)


def _golden(home: PlantHome) -> GoldenSet:
    from fedclient.worker.golden import GoldenSet

    return GoldenSet(home.folder / "golden")


def _facts(golden: GoldenSet, home: PlantHome) -> dict[str, object]:
    return {"folder": str(golden.folder), "counts": golden.counts(), "without": _without(golden, home)}


def _without(golden: GoldenSet, home: PlantHome) -> list[str]:
    """Classes of the federation that no golden picture shows."""
    from fedclient.worker.golden.pictures import without_pictures

    try:
        classes = home.membership().classes
    except WorkspaceError:  # it may have left the federation
        return []
    return without_pictures(classes, golden.counts())


def _table(golden: GoldenSet, home: PlantHome) -> None:
    pictures = golden.pictures()
    if not pictures:
        note("the golden set is empty: `fedclient golden init` takes the held-out share")
        return
    rows = []
    for name in sorted({each.label for each in pictures}):
        members = [each for each in pictures if each.label == name]
        by_hand = sum(each.source == "added" for each in members)
        rows.append((name, len(members), by_hand, f"{sum(each.size for each in members) / 1e6:.1f}"))
    print_table(f"Golden set, {len(pictures)} pictures", ("class", "pictures", "added by hand", "MB"), rows)
    missing = _without(golden, home)
    if missing:
        warn(f"no golden picture shows {', '.join(missing)}: a new engine is not tried there")
