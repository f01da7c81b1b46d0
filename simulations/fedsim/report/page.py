"""Run report: the HTML page of a run, in the frame of ``fedspect.report.page``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable, Optional

from markupsafe import Markup

from fedserver.closed_form.reporting import summary
from fedserver.closed_form.store import ClosedFormStore
from fedsim.report import charts
from fedsim.report import sentences as words
from fedsim.report.gains import gain_rows
from fedsim.report.mistakes import data_uri, worst_mistakes
from fedsim.report.model import ReportedRun, RunSummary, weakest_class
from fedsim.report.reading import load_run
from fedspect.files import write_text
from fedspect.report import page as frame
from fedspect.report.page import chart as chart
from fedspect.training.metrics import Evaluation

REPORT = "report.html"
MOST_ROUNDS, MOST_TROUBLES, MOST_PAIRS, MOST_MISTAKES = 60, 200, 20, 10
SECTIONS = (
    ("classes", "Each class"),
    ("closed-form", "The closed form"),
    ("rounds", "Round by round"),
    ("confusion", "What is taken for what"),
    ("mistakes", "The worst mistakes"),
    ("gains", "What joining gained"),
    ("plants", "Who holds which pictures"),
    ("traffic", "What travelled"),
    ("troubles", "Late, refused, lost"),
    ("settings", "Settings"),
)


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` into the run folder and answer its path; at any time, again and again.

    Raises:
        WorkspaceError: this is not a run folder.
        DamagedFileError: a file in it is not what a run writes.
        StorageError: the page cannot be written.

    """
    run = load_run(run_folder)
    path = run_folder / REPORT
    write_text(path, render("run.html.j2", **_content(run)))
    return path


def render(template: str, **content: Any) -> str:
    """A page from one of the templates beside this module."""
    return frame.render(Path(__file__).parent / "templates", template, **content)


def _content(run: RunSummary) -> dict[str, Any]:
    facts, final = run.facts, run.final
    mistakes = [
        {
            **mistake.prediction.model_dump(include={"name", "true", "predicted", "confidence"}),
            "uri": data_uri(mistake.thumbnail) if mistake.thumbnail else None,
            "heat_map": data_uri(mistake.heat_map) if mistake.heat_map else None,
        }
        for mistake in worst_mistakes(run, MOST_MISTAKES)
    ]
    drawn = _charts(run)
    shown = (
        run.rounds if len(run.rounds) <= MOST_ROUNDS else [*run.rounds[:10], *run.rounds[10 - MOST_ROUNDS :]]
    )
    record = ClosedFormStore(run.folder / "rounds" / "closed-form").latest()
    present = {
        "closed-form": record is not None,
        "classes": final is not None,
        "rounds": drawn["accuracy"] is not None,
        "confusion": bool(final and final.confusion) or drawn["plants"] is not None,
        "mistakes": bool(mistakes),
        "gains": bool(run.comparison and run.comparison.alone),
        "plants": bool(facts.plants),
        "traffic": bool(run.rounds),
    }
    return {
        "run": run,
        "title": facts.title or _title(run),
        "sentences": words.summary_sentences(run),
        "numbers": big_numbers(run),
        "sections": [(key, text) for key, text in SECTIONS if present.get(key, True)],
        "charts": drawn,
        "closed_form": None if record is None else summary(record),
        "tested": any(closed.tested_accuracy is not None for closed in run.rounds),
        "pairs": confused_pairs(final)[:MOST_PAIRS] if final else [],
        "mistakes": mistakes,
        "wrong": sum(prediction.wrong for prediction in run.predictions),
        "gains": gain_rows(run.comparison) if run.comparison else [],
        "joined_weakest": weakest_class(run.comparison.federation.evaluation) if run.comparison else None,
        "gain_sentence": words.gain_sentence(run.comparison) if run.comparison else "",
        "most_pictures": max((n for plant in facts.plants for n in plant.counts.values()), default=1) or 1,
        "shown_rounds": shown,
        "hidden_rounds": len(run.rounds) - len(shown),
        "troubles": run.troubles[:MOST_TROUBLES],
        "hidden_troubles": max(0, len(run.troubles) - MOST_TROUBLES),
        "remarks": run.remarks[:MOST_TROUBLES],
        "overview": _overview(facts),
        "settings": without_comments(run.settings),
    }


def _charts(run: RunSummary) -> dict[str, Optional[Markup]]:
    last = run.rounds[-1] if run.rounds else None
    reached = words.percent(last.tested_accuracy or last.received_accuracy) if last else words.MISSING
    plants = ", ".join(
        f"{name} {words.percent(values[-1])}"
        for name, (_, values) in charts.plant_lines(run, "accuracy").items()
    )
    joined = run.comparison.federation.evaluation.accuracy if run.comparison else None
    return {
        "accuracy": chart(
            charts.accuracy_by_round(run),
            "accuracy",
            f"Line chart of accuracy after each of {len(run.rounds)} rounds. At the end: {reached}; {plants}",
        ),
        "loss": chart(
            charts.loss_by_round(run),
            "loss",
            f"Line chart of the loss after each of {len(run.rounds)} rounds",
        ),
        "plants": chart(
            charts.confusion_by_plant(run),
            "plants",
            f"Confusion matrices, a small one for each plant. Accuracy: {plants}",
        ),
        "traffic": chart(
            charts.traffic_by_round(run),
            "traffic",
            "Bar charts of bytes and seconds per round; the table below",
        ),
        "gains": chart(
            charts.gains(run.comparison) if run.comparison else None,
            "gains",
            f"Accuracy of each plant alone against the federation's {words.percent(joined)}; the table below",
        ),
    }


def _title(run: RunSummary) -> str:
    source = run.facts.data.source or "surface pictures"
    return f"{words.plural(len(run.plant_names), 'plant')}, {source}"


def big_numbers(run: RunSummary) -> list[dict[str, str]]:
    """The figures at the top of the page: label, value, note."""
    facts, final = run.facts, run.final
    numbers: list[dict[str, str]] = []

    def add(label: str, value: str, note: str = "") -> None:
        numbers.append({"label": label, "value": value, "note": note})

    if final is not None:
        span = words.likely_range(round(final.accuracy * final.num_examples), final.num_examples)
        add(
            "right answers",
            words.percent(final.accuracy),
            f"likely between {words.percent(span[0])} and {words.percent(span[1])}" if span else "",
        )
        if final.line.has_good_class:
            line = final.line
            add(
                "escapes",
                words.count(line.escapes),
                f"of {words.plural(line.defects, 'defect')}, passed as good",
            )
            add(
                "false rejects",
                words.count(line.false_rejects),
                f"of {words.plural(line.good, 'good piece')}",
            )
    pictures = sum(plant.pictures for plant in facts.plants)
    add(
        "plants",
        words.count(len(run.plant_names)),
        f"{words.plural(pictures, 'training picture')} that stay there" if pictures else "",
    )
    add(
        "rounds",
        f"{len(run.rounds)}",
        f"of {facts.rounds} planned" if facts.rounds != len(run.rounds) else "",
    )
    per_plant = _bytes_per_plant_and_round(run)
    if per_plant is not None:
        add("travels per round", words.size(per_plant), "to and from one plant together")
    add(
        "time",
        words.duration(facts.seconds or sum(closed.seconds for closed in run.rounds)),
        facts.backend and f"backend {facts.backend}",
    )
    return numbers


def _bytes_per_plant_and_round(run: RunSummary) -> Optional[float]:
    answers = sum(part.bytes_up > 0 for closed in run.rounds for part in closed.plants)
    return sum(closed.bytes_up + closed.bytes_down for closed in run.rounds) / answers if answers else None


def without_comments(toml: str) -> str:
    """The lines of a TOML file that set something, tables apart."""
    lines = [line for line in toml.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return "\n".join(f"\n{line}" if line.startswith("[") else line for line in lines).strip()


def confused_pairs(evaluation: Evaluation) -> list[dict[str, Any]]:
    """True and answered classes that differ, most pictures first."""
    names = [figures.name for figures in evaluation.classes]
    pairs = [
        {"true": names[row], "answered": names[column], "pictures": value}
        for row, line in enumerate(evaluation.confusion)
        for column, value in enumerate(line)
        if row != column and value
    ]
    return sorted(pairs, key=lambda pair: (-pair["pictures"], pair["true"], pair["answered"]))


def _overview(facts: ReportedRun) -> Iterable[tuple[str, str]]:
    data, model = facts.data, facts.model
    travelling = ""
    if model.travelling and model.parameters:
        share = words.percent(model.travelling / model.parameters, 0)
        travelling = f"{model.travelling:,} of {model.parameters:,} parameters ({share})"
    return [
        (
            "pictures",
            f"{data.source}: {data.train:,} to train, {data.test:,} to test" if data.train else data.source,
        ),
        (
            "left out",
            f"{words.plural(data.left_out, 'file')} that could not be used" if data.left_out else "",
        ),
        ("test set", data.split),
        ("plants", facts.partition),
        ("model", f"{model.architecture}, {model.input_size} px" if model.input_size else model.architecture),
        ("base model", f"{model.base} ({model.base_hash[:12]})" if model.base_hash else model.base),
        ("frozen levels", str(model.freeze_levels)),
        ("travels", travelling),
        ("strategy", facts.strategy),
        ("batch norm", facts.batch_norm),
        ("encoding", facts.encoding),
        ("backend", facts.backend),
        ("seed", str(facts.seed)),
        ("run", facts.run_id),
        ("began", words.moment(facts.started)),
        ("ended", words.moment(facts.finished)),
    ]
