"""The line's commands, as `fedclient` hands them on to the worker's interpreter: arguments and printing.

No postponed annotations here: under Python 3.8 and 3.9 typer reads them as they stand.
"""

import csv
import functools
import hashlib
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

import typer
from typing_extensions import Annotated

from fedclient.worker.line import review_commands as keeping
from fedclient.worker.line.decision_policy import DecisionPolicy, refuse_unknown, threshold_table
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.options import HomeOption
from fedclient.worker.line.prediction import Prediction, csv_table, files_of, predict
from fedclient.worker.line.serving.model_leases import ServedModel
from fedclient.worker.line.serving.server import DEFAULT_ADDRESS, DEFAULT_HTTP, Listening, serve
from fedclient.worker.line.settings import SETTINGS_FILE, read_settings, write_settings
from fedclient.worker.line.watch.watch_process import PollInterval, watch
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
from fedspect.errors import EngineError, PictureError, SettingsError, StorageError

if TYPE_CHECKING:
    from fedclient.worker.line.explain.class_activation import Explainer

LONGEST_STEM = 200  # bytes; a name has 255, and a temporary one is longer
MOST_BENCHED = 256  # pictures that are kept in memory

app = make_app("fedclient", "Verdicts for the line.")
keeping.add_to(app)


@app.command("predict")
def predict_command(
    sources: Annotated[
        List[Path], typer.Argument(metavar="FILE|DIR...", help="Pictures, or folders of them.")
    ],
    home: HomeOption,
    json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV.")] = False,
    heat_map: Annotated[
        Optional[Path],
        typer.Option(metavar="DIR", help="Write beside each verdict where it comes from, as PNG."),
    ] = None,
) -> None:
    """Say what becomes of the pieces on these pictures."""
    if json and as_csv:
        raise SettingsError("one form at a time", accepted="--json or --csv")
    line_home = LineHome(home)
    settings = read_settings(line_home.line)
    files = files_of(sources)
    model = line_home.open_current(threads=settings.serving.threads)
    policy = DecisionPolicy(settings.verdicts, model.classes, line_home.guards(model))
    explainer = None if heat_map is None else _explainer(line_home)
    rows: List[Dict[str, Any]] = []
    with progress_bar("pictures", shown=len(files) > 1) as progress:
        for each in predict(model, policy, files, progress):
            row = each.row(model.classes)
            if explainer is not None and heat_map is not None and each.verdict is not None:
                try:
                    row["heat_map"] = str(_write_heat(explainer, heat_map, each, model.classes))
                except StorageError as error:  # the verdicts stand
                    warn(f"{each.path}: no heat map: {error}")
            rows.append(row)
    _print_predictions(rows, model, json=json, as_csv=as_csv)
    unreadable = [row for row in rows if "error" in row]
    if unreadable and json:  # the document has said it
        raise typer.Exit(PictureError.exit_code)
    if unreadable:
        raise PictureError(
            f"{len(unreadable)} of {len(rows)} files could not be read",
            seen=unreadable[0]["error"],
            remedy="they are named in the result; the other verdicts stand",
        )


def _explainer(home: LineHome) -> "Explainer":
    deployment = home.deployments.current()
    if deployment is None:
        raise EngineError("the line has no engine yet")
    from fedclient.worker.line.explain.class_activation import Explainer

    explainer = Explainer(deployment, home.store)
    if explainer.method == "occlusion":
        note(
            "heat maps by occlusion, which is coarse: this network has no global pool behind its last feature map"
        )
    return explainer


def _write_heat(explainer: "Explainer", folder: Path, found: Prediction, classes: Sequence[str]) -> Path:
    from fedclient.worker.line.explain.overlay import save_overlay

    assert found.verdict is not None and found.pixels is not None
    heat = explainer.heat(found.pixels, classes.index(found.verdict.label))
    mark = hashlib.sha256(str(found.path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:6]
    stem = found.path.stem.encode("utf-8", "surrogateescape")[:LONGEST_STEM].decode("utf-8", "ignore")
    path = folder / f"{stem}-{mark}.png"  # files of one name in two folders stay apart
    save_overlay(path, found.pixels, heat)
    return path


def _print_predictions(rows: List[Dict[str, Any]], model: ServedModel, *, json: bool, as_csv: bool) -> None:
    facts = {"version": model.version, "number": model.number}
    if json:
        print_json({**facts, "pictures": rows})
        return
    if as_csv:
        columns, written = csv_table(rows, model.classes, facts)
        writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(written)
        return
    table = []
    for row in rows:
        if "error" in row:
            table.append((row["file"], "unreadable", "", "", ""))
        else:
            table.append(
                (row["file"], row["verdict"], row["class"], f"{row['confidence']:.1%}", f"{row['ms']:.1f}")
            )
    counts = Counter(str(row[1]) for row in table)
    caption = f"version {model.number}: " + ", ".join(
        f"{count} {name}" for name, count in counts.most_common()
    )
    print_table("Verdicts", ("picture", "verdict", "class", "confidence", "ms"), table, caption=caption)
    for row in rows:
        if "error" in row:
            warn(row["error"])  # which names the file
        elif "reasons" in row:
            warn(f"{row['file']}: {'; '.join(row['reasons'])}")


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


@app.command("watch")
def watch_command(
    folder: Annotated[Path, typer.Argument(help="The folder that a camera fills.")],
    home: HomeOption,
    output: Annotated[Optional[Path], typer.Option(help="Append the verdicts to this file too.")] = None,
    skip_present: Annotated[
        bool, typer.Option("--skip-present", help="Pictures that lie there already need no verdict.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="End when every picture has its verdict.")] = False,
    every: Annotated[float, typer.Option(min=0.02, help="Seconds between two looks.")] = 0.5,
    settle: Annotated[float, typer.Option(min=0, help="Seconds that a file must not change.")] = 0.3,
    give_up: Annotated[
        float, typer.Option(min=0, help="Seconds after which a damaged picture is a person's to see.")
    ] = 10.0,
) -> None:
    """Give each new picture of a folder a verdict, a JSON line each."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    times = PollInterval(every, settle, give_up)
    watch(LineHome(home), folder, times, output=output, skip_present=skip_present, once=once)


@app.command("bench")
def bench_command(
    home: HomeOption,
    pictures: Annotated[
        Optional[List[Path]], typer.Option(help="Measure with these; may be repeated.", show_default="noise")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="For each engine.")] = 10.0,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Pictures at once, for the rate.")] = 8,
    json: JsonOption = False,
) -> None:
    """Measure how fast the line answers, by kind of engine and precision."""
    from fedclient.worker.line.bench import as_dict, bench

    line_home = LineHome(home)
    deployment = line_home.deployments.current()
    if deployment is None:
        raise EngineError("the line has no engine yet", remedy="see `fedclient engines list`")
    threads = read_settings(line_home.line).serving.threads
    files = files_of(pictures)[:MOST_BENCHED] if pictures else ()
    with progress_bar("engines") as progress:
        rows = bench(
            deployment,
            line_home.store,
            seconds=seconds,
            batch=batch,
            threads=threads,
            files=files,
            progress=progress,
        )
    if json:
        facts = {"version": deployment.version, "number": deployment.number, "threads": threads}
        print_json({**facts, "engines": [as_dict(row) for row in rows]})
        return
    table = [
        (
            f"{row.kind} {row.precision}",
            f"{row.p50_ms:.2f}",
            f"{row.p95_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.engine_p50_ms:.2f}",
            f"{row.pictures_per_second:.0f}",
            "" if row.memory_mib is None else f"{row.memory_mib:.0f}",
        )
        for row in rows
    ]
    columns = ("engine", "p50 ms", "p95 ms", "p99 ms", "engine alone", "pictures/s", "MiB")
    caption = f"version {deployment.number}, {threads} thread(s); the rate in batches of {rows[0].batch}"
    print_table("Speed", columns, table, caption=caption)


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
    classes = () if deployment is None else deployment.classes
    changes: Dict[str, Any] = {}
    if good:
        changes["verdicts.good_classes"] = good
    if sure is not None:
        changes["verdicts.sure"] = sure
    pairs = _pairs(sure_of or [])
    if pairs:
        changes["verdicts.sure_of"] = {**settings.verdicts.sure_of, **pairs}
    if changes:
        settings = read_settings(line_home.line, changes)
    if classes:
        refuse_unknown(good or (), classes, "--good")
        refuse_unknown(pairs, classes, "--sure-of")
    table = threshold_table(settings.verdicts, classes) if classes else []
    if changes:
        write_settings(line_home.line, settings)
    if json:
        print_json({"classes": table, **settings.verdicts.model_dump()})
        return
    if not classes:
        note("the line has no version yet; these thresholds wait for it")
    rows = [(row["class"], "yes" if row["good"] else "", f"{row['sure']:.2f}") for row in table]
    print_table(
        "Thresholds", ("class", "good", "sure from"), rows, caption=str(line_home.line / SETTINGS_FILE)
    )


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
    run_app(functools.partial(app, prog_name="fedclient"))  # what its user typed
