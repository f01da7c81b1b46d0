"""TensorBoard events of a run: accuracy and loss by plant and together, bytes and seconds, a step a round."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from fedserver.report.records import FederationReport
from fedspect import files


def write_events(report: FederationReport, folder: Path) -> bool:
    """Write TensorBoard's event file into ``folder`` in place of an earlier one; answers whether that was possible.

    The package `tensorboard` is needed for that, and torch is not. Without it nothing is written.

    Raises:
        StorageError: it cannot be written.

    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return False
    making = folder.parent / f"{files.MAKING_PREFIX}{folder.name}"
    files.remove_folder(making)
    writer: Any = EventFileWriter(str(making))
    for step, when, values in _scalars(report):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        writer.add_event(Event(step=step, wall_time=when, summary=summary))
    writer.close()
    files.remove_folder(folder)
    making.rename(folder)
    return True


def _scalars(report: FederationReport) -> list[tuple[int, float, dict[str, float]]]:
    """Rows of step, time and values by tag; what is not known is left out."""
    times = {each.round: _time(each.started) + each.seconds for each in report.rounds}
    times[0] = _time(report.rounds[0].started) if report.rounds else 0.0
    found: dict[int, dict[str, float | None]] = {
        0: {"accuracy/all": report.before, "loss/all": report.loss_before}
    }
    for each in report.rounds:
        found[each.round] = {
            "accuracy/all": each.accuracy,
            "loss/all": each.loss,
            "loss/training": each.train_loss,
            "round/seconds": each.seconds,
            "round/bytes up": float(each.bytes_up),
            "round/bytes down": float(each.bytes_down),
            "round/updates": float(each.updates),
        }
    for plant in report.plants:
        for point in plant.course:
            values = found.setdefault(point.round, {})
            values[f"accuracy/{plant.plant}"] = point.accuracy
            values[f"loss/{plant.plant}"] = point.loss
    last = max(times.values())
    return [
        (step, times.get(step, last), {tag: value for tag, value in values.items() if value is not None})
        for step, values in sorted(found.items())
    ]


def _time(text: str) -> float:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
