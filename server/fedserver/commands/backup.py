"""`fedserver backup` and `fedserver restore`: a workspace as one file, taken while the server runs."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from fedserver.commands.options import HERE, WorkspaceOption, open_workspace
from fedspect.console import JsonOption, note, print_json, warn
from fedspect.errors import SettingsError, WorkspaceError, storage_error
from fedspect.files import replacing

if TYPE_CHECKING:
    from fedserver.operations.backup import Copied
    from fedserver.workspace import Workspace

STANDARD = Path("-")  # standard output or input, for a pipe through an encrypting program


def add_to(app: typer.Typer) -> None:
    """Add both commands."""
    app.command("backup")(backup_command)
    app.command("restore")(restore_command)


def backup_command(
    output: Annotated[
        Optional[Path],
        typer.Argument(help="A new file, a folder for one named by the time, or - for standard output."),
    ] = None,
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Copy the workspace into one file, 0600, also while the server runs. It holds secrets: encrypt it."""
    from fedserver.operations.backup import back_up

    opened = open_workspace(workspace)
    if output == STANDARD:
        if json or sys.stdout.isatty():
            raise SettingsError(
                "standard output is not for a backup here",
                seen="--json" if json else "a terminal",
                remedy="send it through a pipe, or name a file",
            )
        copied = back_up(opened, sys.stdout.buffer)
        sys.stdout.flush()
    else:
        path = _new_file(opened, output or Path())
        with replacing(path, mode=0o600) as file:
            copied = back_up(opened, file)
        if json:
            print_json({"file": str(path), **asdict(copied)})
            return
        sys.stdout.write(f"{path}\n")
    note(f"{_text(copied)}. It holds the federation's keys: keep it as you keep those")
    for each in copied.notes:
        warn(each)


def _new_file(workspace: Workspace, output: Path) -> Path:
    if output.is_dir():
        name = workspace.settings().federation.name
        output = output / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.backup.tar"
    output = output.absolute()
    if output.resolve().is_relative_to(workspace.folder):
        raise WorkspaceError(
            "a backup does not belong into the workspace itself",
            seen=output,
            remedy="name a folder elsewhere, best on another machine",
        )
    if output.exists():
        raise WorkspaceError("there is such a file already", seen=output, remedy="name another one")
    return output


def restore_command(
    source: Annotated[Path, typer.Argument(help="What `fedserver backup` wrote, or - for standard input.")],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    json: JsonOption = False,
) -> None:
    """Make a workspace from a backup, in a folder where nothing is yet."""
    from fedserver.operations.restore import restore

    try:
        if source == STANDARD:
            copied = restore(sys.stdin.buffer, folder)
        else:
            with source.open("rb") as file:
                copied = restore(file, folder)
    except FileNotFoundError as error:
        raise WorkspaceError("there is no such backup", seen=error.filename) from error
    except OSError as error:
        raise storage_error(error, source, "reading a backup") from error
    if json:
        print_json({"folder": str(folder.resolve()), **asdict(copied)})
        return
    note(f"{folder}: {_text(copied)}, as it was at {copied.made}")
    note(f"next: fedserver start -w {folder}    (and never the old one beside it)")


def _text(copied: Copied) -> str:
    return f"{copied.files} files, {copied.bytes / 1e6:.1f} MB of {copied.federation}"
