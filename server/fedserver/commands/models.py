"""`fedserver models`: the published versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from fedserver.commands.options import HERE, WorkspaceOption, open_workspace
from fedspect.console import JsonOption, note, print_json, print_table, warn

if TYPE_CHECKING:
    from fedserver.registry.versions import PublishedVersion
    from fedserver.workspace import Workspace

FEW_PICTURES = 50  # an accuracy of fewer is within some points of anything

models_app = typer.Typer(
    help="The versions of the model that plants are given: publish, look, hand out, take back.",
    no_args_is_help=True,
)

VersionArgument = Annotated[
    str,
    typer.Argument(
        metavar="VERSION", help='A number, the beginning of a hash, or "published".', show_default=False
    ),
]


def add_to(app: typer.Typer) -> None:
    """Make them commands of ``app``."""
    app.add_typer(models_app, name="models")


@models_app.callback()
def models(workspace: WorkspaceOption = HERE) -> None:
    """Take the workspace that the commands below work on; each may name its own."""


@models_app.command("list")
def list_command(workspace: WorkspaceOption = HERE, json: JsonOption = False) -> None:
    """List the versions, newest last."""
    opened = open_workspace(workspace)
    rows = [_row(opened, version) for version in opened.models.versions()]
    if json:
        print_json(rows)
        return
    print_table(
        f"Versions of {opened.settings().federation.name}",
        ["version", "state", "run", "round", "accuracy", "before", "lines", "published"],
        [
            [
                row["version"],
                row["state"],
                row["run"].removeprefix("run-").lstrip("0"),
                row["round"],
                _cell(row["accuracy"]),
                _cell(row["before"]),
                row["on the line"],
                row["published"][:10],
            ]
            for row in rows
        ],
        caption="" if rows else "nothing was published yet: fedserver models publish",
    )
    for row in rows:
        if 0 < row["evaluated"] < FEW_PICTURES:
            warn(f"the accuracy of version {row['version']} comes from {row['evaluated']} pictures only")


@models_app.command()
def show(
    version: VersionArgument = "published", workspace: WorkspaceOption = HERE, json: JsonOption = False
) -> None:
    """Show one version: where it comes from, what the plants measured of it, where it runs."""
    opened = open_workspace(workspace)
    found = opened.models.named(version)
    card, plants = found.card, _plants(opened, found)
    if json:
        print_json(
            {
                **card.model_dump(mode="json"),
                "state": _state(opened, found),
                "retired": found.retired,
                "folder": str(found.folder),
                "plants": plants,
            }
        )
        return
    facts = {
        "hash": card.content_hash,
        "state": _state(opened, found),
        "parent": card.parent or "none: the first on its base model",
        "base model": card.base_hash,
        "network": f"{card.architecture}, {card.freeze_levels} levels frozen",
        "classes": ", ".join(card.classes),
        "made by": f"{card.run}, round {card.rounds}",
        "published": card.created,
        "note": card.note,
        "retired": f"{found.retired.get('at')}: {found.retired.get('reason')}" if found.retired else "",
    }
    rows: list[list[object]] = [[name, text] for name, text in facts.items() if text]
    print_table(f"Version {card.number}", ["fact", "value"], rows)
    columns = ["plant", "accuracy", "before", "outcome"]
    caption = f"accuracy on {card.metrics.evaluated:,} evaluation pictures of the plants"
    if not card.metrics.evaluated:
        caption = "nobody has evaluated this round"
    print_table(
        "At the plants", columns, [[_cell(row[name]) for name in columns] for row in plants], caption=caption
    )


@models_app.command()
def publish(
    run: Annotated[
        Optional[str], typer.Option(help="Which run: run-0001 or 1.", show_default="the newest")
    ] = None,
    round_: Annotated[
        str,
        typer.Option(
            "--round",
            help="Which of its rounds: a number, last, best, closed-form; result is the best where the run began at a "
            "closed form, and the last elsewhere.",
        ),
    ] = "result",
    note_: Annotated[str, typer.Option("--note", help="What is to be read beside the version.")] = "",
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Publish what a run has reached: plants fetch it, try it on their own pictures and let the line run it."""
    from fedserver.registry.publishing import publish as publish_round
    from fedserver.storage.runs import named_run

    opened = open_workspace(workspace)
    version, new = publish_round(opened, named_run(opened.runs, run), round_name=round_, note=note_[:2000])
    if json:
        print_json({**_row(opened, version), "new": new, "folder": str(version.folder)})
    elif new:
        note(f"published version {version.name} of {version.card.run}, round {version.card.rounds}")
    else:
        note(f"nothing changed: this model is version {version.name} already")
    _warn_if_not_offered(opened, version)


@models_app.command()
def export(
    version: VersionArgument,
    folder: Annotated[Path, typer.Argument(help="A new folder for the base model.", show_default=False)],
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Write a version as a base model's folder: base and head in one, for fedsim, another federation, anybody."""
    from fedserver.registry.publishing import export_version
    from fedserver.registry.versions import SHORT

    opened = open_workspace(workspace)
    found = opened.models.named(version)
    content_hash = export_version(opened, found, folder)
    if found.card.batch_norm == "per-plant":
        warn("each plant has running statistics of its own; the exported network has the base model's")
    if json:
        print_json({"folder": str(folder), "version": found.card.number, "base_hash": content_hash})
    else:
        note(f"{folder}: version {found.name} as base model {content_hash[:SHORT]}")


@models_app.command()
def retire(
    version: VersionArgument,
    reason: Annotated[str, typer.Option(help="Why; it is kept beside the version.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Offer it again.")] = False,
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Take a version back: plants go to the newest one that is not retired. Nothing is deleted."""
    from fedserver.registry.publishing import latest_offer

    opened = open_workspace(workspace)
    found = opened.models.named(version)
    if undo:
        found = opened.models.reinstate(found)
    elif found.retired is None:
        found = opened.models.retire(found, reason[:2000])
    else:
        note(f"nothing changed: version {found.name} was retired {found.retired.get('at')}")
    if json:
        print_json(_row(opened, found))
    else:
        note(
            f"version {found.name} is {'offered again' if undo else 'retired'}; {latest_offer(opened.models)}"
        )


def _row(workspace: Workspace, version: PublishedVersion) -> dict[str, Any]:
    from fedserver.registry.versions import SHORT

    card = version.card
    lines = [workspace.deployments.of(plant).line for plant in sorted(workspace.registry.read().plants)]
    return {
        "version": card.number,
        "hash": card.content_hash[:SHORT],
        "content_hash": card.content_hash,
        "state": _state(workspace, version),
        "run": card.run,
        "round": card.rounds,
        "accuracy": card.metrics.mean.get("accuracy"),
        "before": card.before.mean.get("accuracy"),
        "evaluated": card.metrics.evaluated,
        "on the line": sum(line is not None and line.report.version == card.content_hash for line in lines),
        "published": card.created,
    }


def _state(workspace: Workspace, version: PublishedVersion) -> str:
    if version.retired is not None:
        return "retired"
    published = workspace.models.published()
    return "published" if published is not None and published.folder == version.folder else "earlier"


def _plants(workspace: Workspace, version: PublishedVersion) -> list[dict[str, Any]]:
    """Each plant's measurements of the version, and what became of it there."""
    from fedserver.registry.deployment_reports import ON_THE_LINE

    card = version.card
    names = {*workspace.registry.read().plants, *card.metrics.plants}
    rows = []
    for name in sorted(names):
        deployed = workspace.deployments.of(name)
        reports = [one.report for one in deployed.reports if one.report.version == card.content_hash]
        outcome: str | None = reports[-1].outcome if reports else None
        now = deployed.line
        if outcome in ON_THE_LINE and now is not None and now.report.version != card.content_hash:
            outcome = f"{outcome}, now version {now.report.number}"
        rows.append(
            {
                "plant": name,
                "accuracy": card.metrics.plants.get(name, {}).get("accuracy"),
                "before": card.before.plants.get(name, {}).get("accuracy"),
                "outcome": outcome,
                "reasons": reports[-1].reasons if reports else [],
                "figures": reports[-1].figures if reports else {},
            }
        )
    return rows


def _cell(value: object) -> object:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if isinstance(value, float) else value


def _warn_if_not_offered(workspace: Workspace, version: PublishedVersion) -> None:
    """An older round that is published again does not go before a newer version."""
    offered = workspace.models.published()
    if offered is not None and offered.folder != version.folder:
        warn(f"plants are to run the newer version {offered.name}; retire that to bring them to this one")
