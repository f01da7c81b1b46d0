"""Plots of a run as PNG files, for slides and letters."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from matplotlib.figure import Figure

from fedsim.report import charts
from fedsim.report.mistakes import MistakeImage, worst_mistakes
from fedsim.report.reading import load_run
from fedsim.report.sentences import percent
from fedspect.report.palette import LIGHT
from fedspect.report.svg import drawing, new_figure, write_png

FIGURES = "figures"


def write_figures(run_folder: Path) -> list[Path]:
    """Write the run's plots into ``figures/``, without those that have nothing to show; answer their paths.

    Raises:
        WorkspaceError, DamagedFileError, StorageError: as ``write_report``.

    """
    run = load_run(run_folder)
    final = run.final
    drawn: dict[str, Optional[Figure]] = {
        "accuracy": charts.accuracy_by_round(run),
        "loss": charts.loss_by_round(run),
        "confusion": charts.confusion(final.confusion, [each.name for each in final.classes])
        if final
        else None,
        "confusion-by-plant": charts.confusion_by_plant(run),
        "traffic": charts.traffic_by_round(run),
        "mistakes": mistakes_sheet(worst_mistakes(run)),
        "gains": charts.gains(run.comparison) if run.comparison else None,
    }
    folder = run_folder / FIGURES
    return [write_png(figure, folder / f"{name}.png") for name, figure in drawn.items() if figure is not None]


def mistakes_sheet(mistakes: list[MistakeImage], columns: int = 4) -> Optional[Figure]:
    """The worst mistakes side by side, each with its true and its answered class."""
    if not mistakes:
        return None
    rows = -(-len(mistakes) // columns)
    with drawing():
        figure = new_figure(9.0, 2.75 * rows)
        for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            axes.set_axis_off()
            if place >= len(mistakes):
                continue
            mistake, said = mistakes[place], mistakes[place].prediction
            if mistake.thumbnail is not None:
                axes.imshow(mistake.thumbnail.convert("RGB"))
            axes.set_title(
                f"{said.true}\ntaken for {said.predicted} ({percent(said.confidence, 0)})",
                fontsize=8,
                color=LIGHT["ink"],
            )
    return figure
