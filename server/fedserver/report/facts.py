"""Data of a federation's report, gathered from the workspace: the run, its plants, versions and deployments.

A plant measures the model that it *receives*, on evaluation pictures of its own. What it says in round 5 is
therefore said of the model after round 4, and 0 is what the run began with. What joining gained a plant is
what the last model answers rightly of its pictures against the first one that it was given.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fedserver.closed_form.reporting import summary
from fedserver.report.records import FederationReport, PlantRow, Point, RoundRow, Trouble, VersionRow
from fedserver.rounds.history import Evaluation, PlantResult, RoundRecord
from fedserver.storage.run_store import RunStore
from fedserver.storage.runs import is_finished, read_status
from fedserver.workspace import Workspace
from fedspect.report.formatting import natural_order


def gather(workspace: Workspace, run: Path) -> FederationReport:
    """Gather the report of a run and of the federation around it.

    Raises:
        WorkspaceError, DamagedFileError: the run, or a version, cannot be read.

    """
    store = RunStore(run)
    history, known = store.history(), store.evaluations()
    status, facts = read_status(run), store.facts
    finished = is_finished(store)
    closed_form = store.closed_forms.latest()
    measured = [known[number] for number in sorted(known)]
    return FederationReport(
        federation=workspace.settings().federation.name,
        run=run.name,
        state="finished" if finished else str(status.get("state", "begun")),
        text=str(status.get("text", "")),
        written=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        planned=facts.rounds.rounds,
        classes=facts.classes,
        base_hash=facts.base_hash,
        strategy=facts.strategy,
        encoding=facts.rounds.encoding,
        batch_norm=facts.rounds.batch_norm,
        before=known[0].mean.get("accuracy") if 0 in known else None,
        loss_before=_loss(known[0].mean) if 0 in known else None,
        after=measured[-1].mean.get("accuracy") if measured else None,
        closed_form=None if closed_form is None else summary(closed_form),
        rounds=[_round(record, known.get(record.round)) for record in history],
        plants=_plants(workspace, store, history),
        troubles=[trouble for record in history for trouble in _troubles(record)],
        versions=_versions(workspace),
        notes=_notes(history),
    )


def _round(record: RoundRecord, evaluation: Evaluation | None) -> RoundRow:
    mean = {} if evaluation is None else evaluation.mean
    return RoundRow(
        round=record.round,
        started=record.started,
        seconds=record.seconds,
        updates=sum(each.weight > 0 for each in record.plants),
        accuracy=mean.get("accuracy"),
        loss=_loss(mean),
        train_loss=record.train_loss,
        bytes_up=record.bytes_up,
        bytes_down=record.bytes_down,
    )


def _plants(workspace: Workspace, store: RunStore, history: list[RoundRecord]) -> list[PlantRow]:
    registered = workspace.registry.read().plants
    results: dict[str, list[tuple[int, PlantResult]]] = {name: [] for name in registered}
    troubles: dict[str, list[str]] = {}
    for record in history:
        for each in record.plants:
            results.setdefault(each.plant, []).append((record.round, each))
        for trouble in _troubles(record):
            troubles.setdefault(trouble.plant, []).append(trouble.kind)
    closing = store.closing(store.rounds()[-1])
    rows = []
    for name in sorted({*results, *troubles}, key=natural_order):
        state = registered[name].state if name in registered else "unknown"
        own = results.get(name, [])
        rows.append(_plant(name, state, own, troubles.get(name, []), closing, workspace))
    return rows


def _plant(
    name: str,
    state: str,
    own: list[tuple[int, PlantResult]],
    troubles: list[str],
    closing: Evaluation | None,
    workspace: Workspace,
) -> PlantRow:
    course = _history(name, own, closing)
    judged = [point for point in course if point.accuracy is not None]
    before, after = (judged[0], judged[-1]) if judged else (None, None)
    gain = None
    if before is not None and after is not None and after.round > before.round:
        gain = (after.accuracy or 0.0) - (before.accuracy or 0.0)
    seconds = sorted(one.seconds["total"] for _, one in own if "total" in one.seconds)
    deployed = workspace.deployments.of(name)
    last = deployed.last
    return PlantRow(
        plant=name,
        state=state,
        pictures=own[-1][1].num_examples if own else 0,
        evaluated=own[-1][1].evaluated if own else 0,
        before=None if before is None else before.accuracy,
        before_round=None if before is None else before.round,
        after=None if after is None else after.accuracy,
        after_round=None if after is None else after.round,
        gain=gain,
        updates=sum(one.weight > 0 for _, one in own),
        late=troubles.count("late"),
        refused=troubles.count("refused"),
        lost=troubles.count("lost"),
        bytes_up=sum(one.bytes_up for _, one in own),
        bytes_down=sum(one.bytes_down for _, one in own),
        seconds=seconds[len(seconds) // 2] if seconds else None,
        line=None if deployed.line is None else deployed.line.report.number,
        outcome="" if last is None else f"version {last.report.number} {last.report.outcome}",
        reasons=[] if last is None else last.report.reasons,
        course=course,
    )


def _history(name: str, own: list[tuple[int, PlantResult]], closing: Evaluation | None) -> list[Point]:
    found = {
        number - 1 - one.late_by: Point(
            round=number - 1 - one.late_by, accuracy=one.metrics.get("accuracy"), loss=_loss(one.metrics)
        )
        for number, one in own
        if one.evaluated > 0
    }
    if closing is not None and name in closing.plants:
        metrics = closing.plants[name]
        point = Point(round=closing.round, accuracy=metrics.get("accuracy"), loss=_loss(metrics))
        found[closing.round] = point
    return [found[number] for number in sorted(found)]


def _troubles(record: RoundRecord) -> list[Trouble]:
    late = [
        Trouble(round=record.round, plant=one.plant, kind="late", reason=f"rounds too late: {one.late_by}")
        for one in record.plants
        if one.late_by
    ]
    refused = [
        Trouble(round=record.round, plant=one.plant, kind="refused", reason=one.reason)
        for one in record.refused
    ]
    lost = [
        Trouble(round=record.round, plant=plant, kind="lost", reason=reason)
        for plant, reason in sorted(record.lost.items())
    ]
    return [*late, *refused, *lost]


def _versions(workspace: Workspace) -> list[VersionRow]:
    lines: dict[str, list[str]] = {}
    for name in sorted(workspace.registry.read().plants, key=natural_order):
        line = workspace.deployments.of(name).line
        if line is not None:
            lines.setdefault(line.report.version, []).append(name)
    return [
        VersionRow(
            number=each.card.number,
            content_hash=each.card.content_hash,
            run=each.card.run,
            round=each.card.rounds,
            created=each.card.created,
            accuracy=each.card.metrics.mean.get("accuracy"),
            retired="" if each.retired is None else str(each.retired.get("reason") or "retired"),
            lines=lines.get(each.card.content_hash, []),
        )
        for each in workspace.models.versions()
    ]


def _notes(history: list[RoundRecord]) -> list[str]:
    said: dict[str, None] = {}
    for record in history:
        said.update(dict.fromkeys(record.notes))
        for one in record.plants:
            said.update(dict.fromkeys(f"{one.plant}: {remark}" for remark in one.remarks))
    return list(said)


def _loss(metrics: dict[str, Any]) -> float | None:
    loss = metrics.get("loss", metrics.get("log_loss"))
    return None if loss is None else float(loss)
