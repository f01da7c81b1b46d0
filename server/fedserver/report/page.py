"""Report page: one self-contained HTML file, in the frame that all pages of Fedspect have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedserver.report.records import FederationReport, PlantRow
from fedspect.report import charts
from fedspect.report import formatting as words
from fedspect.report.page import chart
from fedspect.report.page import render as render_page

TEMPLATES = Path(__file__).parent / "templates"
MOST_ROUNDS, MOST_TROUBLES, MOST_NOTES = 60, 200, 100


def render(report: FederationReport) -> str:
    """The page."""
    rounds = report.rounds
    if len(rounds) > MOST_ROUNDS:
        rounds = [*rounds[:10], *rounds[10 - MOST_ROUNDS :]]
    reached = words.percent(report.after)
    return render_page(
        TEMPLATES,
        "federation.html.j2",
        report=report,
        title=f"{report.federation}: {words.plural(len(report.plants), 'plant')}, {report.run}",
        sentences=sentences(report),
        numbers=big_numbers(report),
        accuracy=chart(
            accuracy_by_round(report),
            "accuracy",
            f"Line chart of accuracy after each of {len(report.rounds)} rounds. At the end: {reached}",
        ),
        loss=chart(loss_by_round(report), "loss", "Line chart of the loss after each round"),
        traffic=chart(traffic(report), "traffic", "Bar charts of bytes and seconds per round"),
        shown_rounds=rounds,
        hidden_rounds=len(report.rounds) - len(rounds),
        troubles=report.troubles[:MOST_TROUBLES],
        hidden_troubles=max(0, len(report.troubles) - MOST_TROUBLES),
        notes=report.notes[:MOST_NOTES],
        overview=_overview(report),
    )


def sentences(report: FederationReport) -> list[str]:
    """The result in sentences that need no machine learning to understand."""
    if not report.rounds:
        return [f"No round is closed yet, of {report.planned} that are planned."]
    plants = words.plural(len([each for each in report.plants if each.updates]), "plant")
    done = words.plural(len(report.rounds), "round")
    state = {
        "finished": f"{plants} trained one model together in {done}.",
        "stopped": f"{plants} were training one model together when it was stopped after {done}.",
    }.get(report.state, f"{plants} are training one model together: {done} of {report.planned} so far.")
    found = [state]
    gains = [each for each in report.plants if each.gain is not None]
    if gains:
        better = [each for each in gains if (each.gain or 0) > 0]
        least, most = min(each.gain or 0 for each in gains), max(each.gain or 0 for each in gains)
        whom = "every plant" if len(better) == len(gains) else f"{len(better)} of {len(gains)} plants"
        found.append(
            f"On its own evaluation pictures the model became better for {whom}: "
            f"between {words.points(least)} and {words.points(most)} points of accuracy."
        )
    running = [each.plant for each in report.plants if each.line is not None]
    if running:
        found.append(f"A published version runs on the line of {words.listed(running)}.")
    return found


def big_numbers(report: FederationReport) -> list[dict[str, str]]:
    """The figures at the top: label, value, note."""
    up, down = sum(r.bytes_up for r in report.rounds), sum(r.bytes_down for r in report.rounds)
    answers = sum(each.updates for each in report.plants)
    numbers = [
        ("right answers", words.percent(report.after), f"{words.percent(report.before)} before"),
        ("plants", words.count(len(report.plants)), ""),
        ("rounds", words.count(len(report.rounds)), f"of {report.planned} planned"),
        (
            "travels per round",
            words.size((up + down) / answers if answers else None),
            "to and from one plant together",
        ),
        ("a round takes", words.duration(_median([r.seconds for r in report.rounds])), "the median"),
        (
            "troubles",
            words.count(len(report.troubles)),
            "late, refused or lost answers",
        ),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in numbers]


def accuracy_by_round(report: FederationReport) -> Figure | None:
    """The accuracy of the model after each round: each plant, and all together."""
    total = [(each.round, each.accuracy) for each in report.rounds if each.accuracy is not None]
    if report.before is not None:
        total.insert(0, (0, report.before))
    together = ([number for number, _ in total], [value for _, value in total])
    return charts.lines(
        _by_plant(report.plants, "accuracy"), together, "all plants", "accuracy", percentages=True
    )


def loss_by_round(report: FederationReport) -> Figure | None:
    """The same of the loss."""
    total = [(each.round, each.loss) for each in report.rounds if each.loss is not None]
    if report.loss_before is not None:
        total.insert(0, (0, report.loss_before))
    together = ([number for number, _ in total], [value for _, value in total])
    return charts.lines(_by_plant(report.plants, "loss"), together, "all plants", "loss", percentages=False)


def traffic(report: FederationReport) -> Figure | None:
    """Bytes and seconds by round."""
    if not report.rounds:
        return None
    return charts.traffic(
        [each.round for each in report.rounds],
        [each.bytes_down for each in report.rounds],
        [each.bytes_up for each in report.rounds],
        [each.seconds for each in report.rounds],
    )


def _by_plant(plants: list[PlantRow], value: str) -> dict[str, charts.Line]:
    lines: dict[str, charts.Line] = {}
    for plant in plants:
        known = [(point.round, getattr(point, value)) for point in plant.course]
        known = [(number, measured) for number, measured in known if measured is not None]
        if known:
            lines[plant.plant] = ([number for number, _ in known], [measured for _, measured in known])
    return lines


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _overview(report: FederationReport) -> list[tuple[str, Any]]:
    return [
        ("federation", report.federation),
        ("run", report.run),
        ("state", f"{report.state}: {report.text}" if report.text else report.state),
        ("classes", ", ".join(report.classes)),
        ("base model", report.base_hash[:12]),
        ("strategy", report.strategy),
        ("encoding", report.encoding),
        ("batch norm", report.batch_norm),
        ("written", report.written),
    ]
