"""The line's commands, as `fedclient` hands them on to the worker's interpreter: arguments and printing."""

from __future__ import annotations

import csv
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Optional

import typer
from typing_extensions import Annotated

from fedclient.worker.line.home import LineHome
from fedclient.worker.line.predicting import CSV_COLUMNS, Prediction, files_of, predict
from fedclient.worker.line.serving import DEFAULT_ADDRESS, DEFAULT_HTTP, Listening, serve
from fedclient.worker.line.settings import SETTINGS_FILE, read_settings, write_settings
from fedclient.worker.line.verdicts import Judge, threshold_table
from fedspect.console import (
    JsonOption,
    make_app,
    note,
    print_json,
    print_table,
    progress_bar,
    run_app,
    version,
    warn,
)
from fedspect.errors import PictureError, SettingsError

app = make_app("fedclient", "Verdicts for the line.")

HomeOption = Annotated[
    Path, typer.Option("--home", help="The plant's own folder.", envvar="FEDSPECT_HOME", show_default=False)
]


@app.command("predict")
def predict_command(
    sources: Annotated[
        List[Path], typer.Argument(metavar="FILE|DIR...", help="Pictures, or folders of them.")
    ],
    home: HomeOption,
    json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV.")] = False,
) -> None:
    """Say what becomes of the pieces on these pictures."""
    if json and as_csv:
        raise SettingsError("one form at a time", accepted="--json or --csv")
    line_home = LineHome(home)
    settings = read_settings(line_home.line)
    files = files_of(sources)
    model = line_home.open_current(threads=settings.serving.threads)
    judge = Judge(settings.verdicts, model.classes)
    with progress_bar("pictures", shown=len(files) > 1) as progress:
        found = []
        for each in predict(model, judge, files, progress):
            found.append(each)
    _print_predictions(found, model.number, model.version, model.classes, json=json, as_csv=as_csv)
    unreadable = [each for each in found if each.verdict is None]
    if unreadable:
        raise PictureError(
            f"{len(unreadable)} of {len(found)} files could not be read",
            seen=unreadable[0].error,
            remedy="they are named in the result; the other verdicts stand",
        )


def _print_predictions(
    found: List[Prediction], number: int, version: str, classes: Any, *, json: bool, as_csv: bool
) -> None:
    rows = [each.row(classes) for each in found]
    if json:
        print_json({"version": version, "number": number, "pictures": rows})
        return
    if as_csv:
        writer = csv.DictWriter(sys.stdout, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    table = []
    for row in rows:
        if "error" in row:
            table.append((row["file"], "unreadable", "", "", ""))
        else:
            table.append(
                (row["file"], row["verdict"], row["class"], f"{row['confidence']:.1%}", f"{row['ms']:.1f} ms")
            )
    counts = Counter(str(row[1]) for row in table)
    caption = f"version {number}: " + ", ".join(f"{count} {name}" for name, count in counts.most_common())
    print_table("Verdicts", ("picture", "verdict", "class", "confidence", "time"), table, caption=caption)
    for row in rows:
        if "error" in row:
            warn(f"{row['file']}: {row['error']}")


@app.command("serve")
def serve_command(
    home: HomeOption,
    address: Annotated[str, typer.Option(help="host:port for gRPC.")] = DEFAULT_ADDRESS,
    socket: Annotated[Optional[Path], typer.Option(help="Answer on this unix socket too.")] = None,
    http: Annotated[str, typer.Option(help="host:port for health and metrics.")] = DEFAULT_HTTP,
    no_http: Annotated[bool, typer.Option("--no-http", help="Without health and metrics.")] = False,
    socket_only: Annotated[bool, typer.Option("--socket-only", help="No gRPC over the network.")] = False,
    certificate: Annotated[Optional[Path], typer.Option(help="TLS: the server's certificate, PEM.")] = None,
    key: Annotated[Optional[Path], typer.Option(help="TLS: its key, PEM.")] = None,
    clients: Annotated[
        Optional[Path], typer.Option(help="TLS: the authority of the clients' certificates, PEM.")
    ] = None,
) -> None:
    """Answer the line: the Open Inference Protocol over gRPC, until told to end."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if socket_only and socket is None:
        raise SettingsError("--socket-only needs a socket", accepted="--socket PATH")
    line_home = LineHome(home)
    if not (line_home.line / SETTINGS_FILE).exists():
        write_settings(line_home.line, read_settings(line_home.line))
    listening = Listening(
        address=None if socket_only else address,
        socket=socket,
        http=None if no_http else http,
        certificate=certificate,
        key=key,
        clients=clients,
    )
    serve(line_home, listening, version=version())


@app.command("thresholds")
def thresholds_command(
    home: HomeOption,
    good: Annotated[
        Optional[List[str]], typer.Option("--good", metavar="CLASS", help="This class means a good piece.")
    ] = None,
    sure: Annotated[Optional[float], typer.Option(help="How sure an answer must be, 0 to 1.")] = None,
    sure_of: Annotated[
        Optional[List[str]],
        typer.Option("--sure-of", metavar="CLASS=VALUE", help="The same for one class; may be repeated."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show how sure the line must be of each class, or change it."""
    line_home = LineHome(home)
    settings = read_settings(line_home.line)
    deployment = line_home.deployments.current()
    changes: Dict[str, Any] = {}
    if good:
        changes["verdicts.good_classes"] = good
    if sure is not None:
        changes["verdicts.sure"] = sure
    if sure_of:
        changes["verdicts.sure_of"] = {**settings.verdicts.sure_of, **_pairs(sure_of)}
    if changes:
        settings = read_settings(line_home.line, changes)
    classes = () if deployment is None else deployment.classes
    table = threshold_table(settings.verdicts, classes) if classes else []
    if changes:
        write_settings(line_home.line, settings)
    if json:
        print_json({"classes": table, **settings.verdicts.model_dump()})
        return
    if not classes:
        note("the line has no version yet; these thresholds wait for it")
    rows = [(row["class"], "good" if row["good"] else "", f"{row['sure']:.2f}") for row in table]
    print_table("Thresholds", ("class", "", "sure from"), rows, caption=str(line_home.line / SETTINGS_FILE))


def _pairs(given: List[str]) -> Dict[str, float]:
    pairs = {}
    for text in given:
        name, equals, value = text.rpartition("=")
        try:
            pairs[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise SettingsError("not a class and its threshold", seen=text, accepted="CLASS=0.95")
    return pairs


def main() -> None:
    """Run one of the line's commands."""
    run_app(app)
