"""Console output of the three commands: exit codes, ``--json``, tables, progress, ``--version``.

A command's file holds arguments and printing only::

    app = make_app("fedsim", "A federation on one machine.")

    @app.command()
    def run(json: JsonOption = False) -> None: ...

    def main() -> None:
        run_app(app)

Results go to standard output, everything else to standard error, so that a result can be piped.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, NoReturn, Optional, Sequence, Tuple

import click
import typer

from fedspect import account, files
from fedspect.errors import FedspectError, InterruptedRunError, StorageError, storage_error

if sys.version_info >= (3, 9):
    from typing import Annotated
else:
    from typing_extensions import Annotated
if TYPE_CHECKING:  # rich takes a quarter of a second: it is imported where something is drawn
    from rich.console import Console

TRACEBACK_VARIABLE = "FEDSPECT_TRACEBACK"
UNEXPECTED = 1  # the exit code of an error that nobody foresaw

JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON.", rich_help_panel="Output"),
]


def make_app(name: str, text: str) -> typer.Typer:
    """A typer application with ``--version``, shell completion and no decorated tracebacks."""
    app = typer.Typer(
        name=name,
        help=text,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        suggest_commands=not hasattr(
            click.exceptions, "NoSuchCommand"
        ),  # newer ones of click suggest by themselves
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{name} {version()}")
            raise typer.Exit

    option = typer.Option(
        False, "--version", help="Print the version and leave.", callback=show_version, is_eager=True
    )

    @app.callback(help=text)
    def common(_version: bool = option) -> None:
        pass

    return app


def version() -> str:
    """The installed version of Fedspect, ``0+unknown`` where it was never installed."""
    try:
        return importlib.metadata.version("fedspect")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def run_app(app: Callable[..., Any], arguments: Optional[Sequence[str]] = None) -> NoReturn:
    """Run a typer application as a process does; every error ends in one clear message and its exit code."""
    account.complete_environment()
    given: List[str] = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error does: what cannot be written is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(given)
    except FedspectError as error:
        leave(error, as_json=as_json)
    except KeyboardInterrupt:
        leave(InterruptedRunError("interrupted"), as_json=as_json)
    except BrokenPipeError:
        # The reader of our output is gone (`fedsim ... | head`): nothing to say and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        leave(
            FedspectError("out of memory", remedy="smaller pictures, a smaller batch or fewer workers"),
            as_json=as_json,
        )
    except OSError as error:
        leave(_from_system(error), as_json=as_json)
    except Exception as error:
        _unexpected(error)
    sys.exit(0)


def leave(error: FedspectError, *, as_json: bool = False) -> NoReturn:
    """Say what is wrong on standard error, or as JSON on standard output, and end with its exit code."""
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(type(error), error, error.__traceback__)
    if as_json:
        print_json(error.as_dict())
    else:
        for line, style in _lines(error):
            _say(line, **style)
    sys.exit(error.exit_code)


def _lines(error: FedspectError) -> Iterator[Tuple[str, Dict[str, Any]]]:
    yield f"error: {error.what}", {"fg": "red", "bold": True}
    if error.seen is not None:
        yield f"  seen:       {error.seen}", {}
    if error.accepted is not None:
        yield f"  accepted:   {error.accepted}", {}
    if error.remedy is not None:
        yield f"  to mend it: {error.remedy}", {"fg": "green"}
    if error.exit_code not in (UNEXPECTED, InterruptedRunError.exit_code):
        yield (
            f"  exit code {error.exit_code}, explained in docs/exit-codes/{error.exit_code}.md",
            {"dim": True},
        )


def _from_system(error: OSError) -> StorageError:
    return storage_error(error, error.filename or "unknown path", "using a file")


def _unexpected(error: Exception) -> NoReturn:
    """A defect of ours: here the trace is what helps."""
    traceback.print_exception(type(error), error, error.__traceback__)
    _say(f"error: unexpected {type(error).__name__}: {error}", fg="red", bold=True)
    _say("  this is a defect of Fedspect: please report it with the lines above")
    sys.exit(UNEXPECTED)


# -- printing ----------------------------------------------------------------------------------------------


def stdout() -> Console:
    """Where results go."""
    from rich.console import Console

    return Console(soft_wrap=False)


def stderr() -> Console:
    """Where progress, notes and errors go."""
    from rich.console import Console

    return Console(stderr=True)


def _say(text: str, **style: Any) -> None:
    """A line on standard error, styled where that is a terminal that wants colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    typer.secho(text, file=sys.stderr, color=False if plain else None, **style)


def print_json(content: Any, *, indent: Optional[int] = 2) -> None:
    """A result as one JSON document on standard output; without ``indent`` as one line."""
    plain = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")  # signs that it lacks are escaped
    sys.stdout.write(files.as_json(content, indent=indent, ensure_ascii=plain, default=str) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line beside the result, on standard error."""
    _say(text)


def warn(text: str) -> None:
    """A line that deserves a second look, on standard error."""
    _say(f"note: {text}", fg="yellow")


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = ""
) -> None:
    """A table on standard output: the first column is left-aligned, the others right-aligned.

    Where it is too wide for its words, each row becomes two lines: a name that is broken cannot be copied.
    """
    from rich.markup import escape
    from rich.table import Table

    console = stdout()
    widths = _widths(columns, rows, console.width - 3 * len(columns) - 1)
    if widths is None:
        lines = [title]
        for first, *others in rows:
            facts = (f"{name} {cell}".strip() for name, cell in zip(columns[1:], others) if str(cell))
            lines += [str(first), f"    {' · '.join(facts)}"]
    else:
        table = Table(title=escape(title), title_justify="left")
        for index, (column, width) in enumerate(zip(columns, widths)):
            table.add_column(escape(column), justify="left" if index == 0 else "right", width=width)
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row))
        console.print(table)
        lines = []
    for line in [*lines, *filter(None, [caption])]:
        console.print(escape(line), highlight=False, soft_wrap=True)


def _widths(columns: Sequence[str], rows: Sequence[Sequence[object]], room: int) -> Optional[List[int]]:
    """How wide each column is so that no word is broken; ``None`` where that needs more room than there is."""
    from rich.cells import cell_len

    cells = [[str(cell) for cell in column] for column in zip(columns, *rows)]
    words = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in cells]
    wished = [max(cell_len(cell) for cell in column) for column in cells]
    spare = room - sum(words)
    if spare < 0:
        return None
    if sum(wished) <= room:
        return wished
    more = sum(wished) - sum(words)
    return [word + spare * (wish - word) // more for word, wish in zip(words, wished)]


@contextlib.contextmanager
def progress_bar(text: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while the block runs; call what it yields with (done, total).

    Nothing is drawn where standard error is no terminal.
    """
    console = stderr()
    if not (shown and console.is_terminal):  # rich would end even an unseen bar with an empty line
        yield lambda done, total: None
        return
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape(text), total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
