"""`fedserver invite` and `fedserver plants`: who takes part, and the state of each."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedserver.commands.options import HERE, WorkspaceOption, open_workspace
from fedspect.console import JsonOption, note, print_json, print_table
from fedspect.protocol.join_token import JoinToken

if TYPE_CHECKING:
    from fedserver.enrolment.plant_registry import RegisteredPlant
    from fedserver.enrolment.plant_reports import ReportedSite
    from fedserver.registry.deployment_reports import PlantDeployments
    from fedserver.workspace import Workspace

plants_app = typer.Typer(
    help="Who is invited, joined, online, runs which version; shut a plant out.", invoke_without_command=True
)


def add_to(app: typer.Typer) -> None:
    """Make them commands of ``app``."""
    app.command("invite")(invite_command)
    app.add_typer(plants_app, name="plants")


def invite_command(
    plant: Annotated[str, typer.Argument(help="The plant's name from now on.")],
    expires: Annotated[str, typer.Option(help="How long the token is good: 30m, 24h, 7d.")] = "24h",
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="The plant's device was exchanged; the old key works until the token is used."
        ),
    ] = False,
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Print a join token: one line for `fedclient join`, good once. Hand it over as you would a password."""
    from fedserver.enrolment.tokens import duration, invite

    opened = open_workspace(workspace)
    network = opened.settings().network
    token = invite(
        opened.registry,
        plant,
        lifetime=duration(expires),
        addresses=[(host, network.enrolment_port) for host in network.hosts],
        fingerprint=opened.authority.fingerprint(),
        replace=replace,
    )
    if json:
        print_json(
            {"plant": plant, "token": str(token), "expires": token.expires, "id": token.token_id.hex()}
        )
        return
    sys.stdout.write(f"{token}\n")
    note(_invitation_note(token))


def _invitation_note(token: JoinToken) -> str:
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(token.expires))
    return f"on the device, before {until}: fedclient join TOKEN --data FOLDER_WITH_PICTURES"


@plants_app.callback()
def plants(context: typer.Context, workspace: WorkspaceOption = HERE, json: JsonOption = False) -> None:
    """List the plants: state, online, pictures, last round, last refusal."""
    if context.invoked_subcommand is not None:
        return
    opened = open_workspace(workspace)
    rows = plant_rows(opened)
    if json:
        print_json(rows)
        return
    columns = ["plant", "state", "online", "pictures", "version on the line", "last round", "last refusal"]
    print_table(
        f"Plants of {opened.settings().federation.name}",
        columns,
        [[row[column] if row[column] is not None else "" for column in columns] for row in rows],
        caption="" if rows else "nobody was invited yet: fedserver invite PLANT",
    )


def plant_rows(workspace: Workspace) -> list[dict[str, Any]]:
    """A row for each plant, from the registry, the running server and the newest run."""
    from fedserver.enrolment.plant_reports import ReportedSite
    from fedserver.storage.runs import client_records

    online = (workspace.running() or {}).get("online", [])
    known = client_records(workspace.runs)
    rows = []
    for plant in sorted(workspace.registry.read().plants.values(), key=lambda each: each.name):
        record = known.get(plant.name, {})
        deployed = workspace.deployments.of(plant.name)
        told = ReportedSite.of(plant.report)
        rows.append(
            {
                "plant": plant.name,
                "state": "quarantined" if record.get("quarantined") else _state(plant, told),
                "online": "yes" if plant.name in online else "no",
                "pictures": told.pictures,
                "version on the line": _on_the_line(deployed),
                "last round": record.get("last_round"),
                "last refusal": record.get("last_refusal"),
                "training waits": told.training and told.training.reason,
                "software": plant.software,
                "seen": plant.seen,
                "counts": told.counts or {},
                "deployments": [each.model_dump(mode="json") for each in deployed.reports],
            }
        )
    return rows


def _on_the_line(deployed: PlantDeployments) -> str | None:
    """The version on the plant's line, and what became of a newer one."""
    line, last = deployed.line, deployed.last
    text = None if line is None else str(line.report.number)
    if last is None or last is line or last == line:
        return text
    return f"{text or 'none'} ({last.report.number} {last.report.outcome})"


def _state(plant: RegisteredPlant, told: ReportedSite) -> str:
    """State of a joined plant: also whether its yield policy blocks training now."""
    if plant.state != "joined" or told.training is None:
        return plant.state
    return {"paused": "paused", "hours": "outside its hours"}.get(told.training.kind, plant.state)


@plants_app.command("show")
def show_command(
    plant: Annotated[str, typer.Argument(help="The plant's name.")],
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Show all that is known of one plant: its pictures, and what became of each version there."""
    opened = open_workspace(workspace)
    opened.registry.read().named(plant)
    row = next(each for each in plant_rows(opened) if each["plant"] == plant)
    if json:
        print_json(row)
        return
    facts = {name: row[name] for name in row if name not in ("plant", "counts", "deployments", "seen")}
    facts["seen"] = None if row["seen"] is None else _moment(row["seen"])
    facts |= {f"pictures of {name}": count for name, count in row["counts"].items()}
    print_table(
        plant, ["fact", "value"], [[name, "" if text is None else text] for name, text in facts.items()]
    )
    print_table(
        "What became of versions, newest last",
        ["version", "outcome", "when", "took", "why"],
        [
            [
                each.report.number,
                each.report.outcome,
                _moment(each.at),
                f"{each.report.seconds:.0f} s",
                "; ".join(each.report.reasons),
            ]
            for each in opened.deployments.of(plant).reports
        ],
    )


@plants_app.command("release")
def release_command(
    plant: Annotated[str, typer.Argument(help="The plant's name.")],
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Let a plant take part again that was quarantined after refused updates, at once if rounds are going on."""
    from fedserver.storage.runs import release

    opened = open_workspace(workspace)
    opened.registry.read().admissible(plant)
    release(opened.runs, plant)
    if json:
        print_json({"plant": plant, "released": True})
    else:
        note(f"{plant} takes part again from the next round on")


@plants_app.command("forget")
def forget_command(
    plant: Annotated[str, typer.Argument(help="The plant's name.")],
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Take a plant's pictures out of the newest run's closed form, as if it had never taken part."""
    from fedserver.closed_form.forgetting import forget
    from fedserver.storage.run_store import RunStore
    from fedserver.storage.runs import named_run

    folder = named_run(open_workspace(workspace).runs)
    record = forget(RunStore(folder), plant)
    if json:
        print_json(
            {"plant": plant, "run": folder.name, "version": record.version, "plants": sorted(record.plants)}
        )
        return
    note(f"the closed form of {folder.name} is now that of {', '.join(sorted(record.plants))}")
    note("`fedserver models publish --round closed-form` makes it a version")
    note("versions that rounds trained on its pictures stay as they are")


def _moment(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


@plants_app.command("revoke")
def revoke_command(
    plant: Annotated[str, typer.Argument(help="The plant's name.")],
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Shut a plant out: its key and its tokens are worth nothing from now on."""
    from fedserver.enrolment.tokens import revoke

    opened = open_workspace(workspace)
    entry = revoke(opened.registry, plant)
    if json:
        print_json({"plant": entry.name, "state": entry.state})
    else:
        note(f"{plant} is revoked; a running server ends its connection within a second")
