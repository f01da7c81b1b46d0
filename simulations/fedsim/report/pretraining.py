"""Pre-training report: pictures, curves, and what the base model reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from pydantic import Field

from fedsim.report import sentences as words
from fedsim.report.model import Record
from fedsim.report.page import MOST_PAIRS, chart, confused_pairs, render
from fedspect.files import write_json, write_text
from fedspect.report.palette import LIGHT
from fedspect.report.svg import calm, drawing, new_figure, write_png
from fedspect.training.metrics import Evaluation

FACTS, PAGE = "pretraining.json", "pretraining.html"


class PretrainEpoch(Record):
    """One epoch."""

    epoch: int
    loss: float
    accuracy: Optional[float] = None
    """On the training views."""
    validation_accuracy: Optional[float] = None
    learning_rate: Optional[float] = None
    connections: Optional[float] = None
    """The share of connections that learned groups still have."""
    seconds: float = 0.0


class PretrainSummary(Record):
    """``pretraining.json``: all that the page shows."""

    title: str = ""
    architecture: str = ""
    sources: list[str] = Field(default_factory=list)
    """What was learned from, as a person would name it."""
    pictures: int = 0
    classes: list[str] = Field(default_factory=list)
    input_size: int = 0
    epochs: list[PretrainEpoch] = Field(default_factory=list)
    condensed_at: Optional[int] = None
    """The epoch after which the network was condensed."""
    evaluation: Optional[Evaluation] = None
    """Of the base model as it was saved, on pictures that it did not learn from."""
    condensing_changed: Optional[float] = None
    """The largest change of a logit by condensing, as a share of their scale."""
    parameters: int = 0
    multiply_adds: int = 0
    """Of one picture at ``input_size``."""
    bytes: int = 0
    """Of the weights file."""
    base_hash: str = ""
    seconds: float = 0.0
    command: str = ""
    seed: int = 0
    environment: dict[str, str] = Field(default_factory=dict)


def write_pretrain_report(folder: Path, summary: PretrainSummary) -> Path:
    """Write ``pretraining.json``, ``pretraining.html`` and a PNG of the curves; answer the page's path.

    Raises:
        StorageError: something cannot be written.

    """
    write_json(folder / FACTS, summary.model_dump(mode="json"))
    figure = learning_curve(summary)
    if figure is not None:
        write_png(figure, folder / "figures" / "pretraining.png")
    write_text(folder / PAGE, render("pretraining.html.j2", **_content(summary)))
    return folder / PAGE


def learning_curve(summary: PretrainSummary) -> Optional[Figure]:
    """Loss, accuracy and, where they are dropped, connections by epoch."""
    if not summary.epochs:
        return None
    epochs = [each.epoch for each in summary.epochs]
    with drawing():
        figure = new_figure(9.0, 2.8)
        left, right = figure.subplots(1, 2)
        left.plot(epochs, [each.loss for each in summary.epochs], color=LIGHT["accent"])
        left.set_title("Loss while training")
        left.set_ylim(bottom=0)
        shares = {
            "while training": ([each.accuracy for each in summary.epochs], LIGHT["quiet"]),
            "on pictures kept back": ([each.validation_accuracy for each in summary.epochs], LIGHT["accent"]),
            "connections left": ([each.connections for each in summary.epochs], LIGHT["series-2"]),
        }
        for name, (values, colour) in shares.items():
            known = [(epoch, value) for epoch, value in zip(epochs, values) if value is not None]
            if known:
                right.plot(*zip(*known), color=colour, label=name)
        right.set_title("Right answers")
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.percent(value, 0)))
        right.legend(frameon=False, loc="center right", fontsize=8)
        for axes in (left, right):
            if summary.condensed_at is not None:
                axes.axvline(summary.condensed_at, color=LIGHT["rule"], linewidth=1, zorder=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
            axes.set_xlabel("epoch")
            calm(axes)
    return figure


def _content(summary: PretrainSummary) -> dict[str, Any]:
    reached = summary.evaluation.accuracy if summary.evaluation else None
    return {
        "summary": summary,
        "title": summary.title or f"A base model: {summary.architecture}",
        "sentence": _sentence(summary),
        "numbers": _big_numbers(summary),
        "pairs": confused_pairs(summary.evaluation)[:MOST_PAIRS] if summary.evaluation else [],
        "curve": chart(
            learning_curve(summary),
            "learning",
            f"Loss and accuracy over {len(summary.epochs)} epochs; at the end {words.percent(reached)}",
        ),
        "facts": [
            ("architecture", summary.architecture),
            ("learned from", words.listed(summary.sources)),
            ("classes", ", ".join(summary.classes)),
            ("input size", f"{summary.input_size} px" if summary.input_size else ""),
            ("condensed", f"after epoch {summary.condensed_at}" if summary.condensed_at is not None else ""),
            (
                "condensing changed",
                f"no logit by more than {summary.condensing_changed:.1e} of their scale"
                if summary.condensing_changed is not None
                else "",
            ),
            ("content hash", summary.base_hash),
            ("seed", str(summary.seed)),
            ("command", summary.command),
            *sorted(summary.environment.items()),
        ],
    }


def _sentence(summary: PretrainSummary) -> str:
    learned = (
        f"{summary.architecture} learned from {words.plural(summary.pictures, 'picture')} of "
        f"{words.plural(len(summary.classes), 'class', 'classes')} in {words.duration(summary.seconds)}."
    )
    if summary.evaluation is None:
        return learned
    return (
        f"{learned} As saved, it names {words.percent(summary.evaluation.accuracy)} of "
        f"{words.plural(summary.evaluation.num_examples, 'picture')} rightly that it did not learn from."
    )


def _big_numbers(summary: PretrainSummary) -> list[dict[str, str]]:
    numbers = []
    if summary.evaluation is not None:
        reached = summary.evaluation
        span = words.likely_range(round(reached.accuracy * reached.num_examples), reached.num_examples)
        note = f"likely between {words.percent(span[0])} and {words.percent(span[1])}" if span else ""
        numbers.append({"label": "right answers", "value": words.percent(reached.accuracy), "note": note})
    if summary.parameters:
        numbers.append({"label": "parameters", "value": f"{summary.parameters / 1e6:.2f} M", "note": ""})
    if summary.multiply_adds:
        numbers.append(
            {
                "label": "multiply-adds",
                "value": f"{summary.multiply_adds / 1e6:.0f} M",
                "note": f"for a picture of {summary.input_size} px",
            }
        )
    if summary.bytes:
        numbers.append({"label": "weights", "value": words.size(summary.bytes), "note": "on disk"})
    numbers.append({"label": "time", "value": words.duration(summary.seconds), "note": ""})
    return numbers
