"""From the files of a run folder to a ``RunSummary``.

A report is most wanted when something went wrong, so only ``run.json`` must be there and whole. A torn row of
``metrics.jsonl`` is counted and skipped; a final evaluation that is missing leaves its sections out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, TypeVar

from pydantic import BaseModel, ValidationError

from fedsim.report.model import (
    ClosingEvaluation,
    Comparison,
    ReportedPrediction,
    ReportedRun,
    RoundFacts,
    RunSummary,
    natural_order,
)
from fedspect.errors import DamagedFileError, WorkspaceError, storage_error
from fedspect.files import read_json, read_json_lines
from fedspect.training.metrics import Evaluation

RUN, CONFIG, METRICS = "run.json", "config.toml", "metrics.jsonl"
EVALUATION, COMPARISON = "evaluation.json", "comparison.json"
MOST_BYTES = 512 << 20  # of one file; a run of a thousand plants and rounds stays far below

M = TypeVar("M", bound=BaseModel)


def load_run(run_folder: Path) -> RunSummary:
    """All that a report shows of the run in ``run_folder``.

    Raises:
        WorkspaceError: this is not a run folder.
        DamagedFileError: a file in it is not what a run writes.

    """
    if not (run_folder / RUN).is_file():
        raise WorkspaceError(
            "this is not the folder of a run",
            seen=run_folder,
            accepted=f"a folder with {RUN}, as `fedsim run` makes it",
        )
    rounds, closing, damaged = _read_rounds(run_folder / METRICS)
    final, predictions = _read_evaluation(run_folder / EVALUATION)
    return RunSummary(
        folder=run_folder,
        facts=_as(ReportedRun, _json(run_folder / RUN) or {}, run_folder / RUN),
        rounds=rounds,
        closing=closing,
        final=final,
        predictions=predictions,
        comparison=load_comparison(run_folder) or load_comparison(run_folder.parent),
        settings=_text(run_folder / CONFIG),
        damaged_rows=damaged,
    )


def load_comparison(folder: Path) -> Optional[Comparison]:
    """The comparison that was made in ``folder``, or none. Raises DamagedFileError."""
    content = _json(folder / COMPARISON)
    return None if content is None else _as(Comparison, content, folder / COMPARISON)


def _read_rounds(path: Path) -> tuple[list[RoundFacts], Optional[ClosingEvaluation], int]:
    """Closed rounds in order, what the plants say of the last model, and how many rows could not be read.

    What is written last of a round counts: a resumed run may say something twice.
    """
    _bounded(path)
    torn: list[str] = []
    closed: dict[int, RoundFacts] = {}
    tested: dict[int, dict[str, Any]] = {}
    closing: Optional[ClosingEvaluation] = None
    damaged = 0
    for row in read_json_lines(path, on_damage=torn.append):
        try:
            if row["event"] == "RoundClosed":
                facts = _closed_round(row["record"])
                closed[facts.round] = facts
            elif row["event"] == "ModelTested":
                measured = {"tested_accuracy": float(row["accuracy"]), "tested_loss": row.get("loss")}
                tested[int(row["round"])] = measured
            elif row["event"] == "RunFinished" and row.get("evaluation") is not None:
                closing = ClosingEvaluation.model_validate(row["evaluation"])
        except (ValidationError, KeyError, TypeError, ValueError, AttributeError):
            damaged += 1
    rounds = [facts.model_copy(update=tested.get(number, {})) for number, facts in sorted(closed.items())]
    return rounds, closing, damaged + len(torn)


def _closed_round(record: dict[str, Any]) -> RoundFacts:
    """A round from its record: results, refusals and lost plants become one list."""
    parts = {}
    for name, reason in record.get("lost", {}).items():
        parts[name] = {"plant": name, "state": "lost", "reason": reason}
    for result in record["plants"]:
        late = int(result.get("late_by", 0))
        state = {"state": "late", "reason": f"rounds too late: {late}"} if late else {"state": "used"}
        parts[result["plant"]] = result | state
    for refusal in record.get("refused", []):
        name = refusal["plant"]
        parts[name] = parts.get(name, {}) | {"plant": name, "state": "refused", "reason": refusal["reason"]}
    plants = [parts[name] for name in sorted(parts, key=natural_order)]
    return RoundFacts.model_validate(record | {"plants": plants})


def _read_evaluation(path: Path) -> tuple[Optional[Evaluation], list[ReportedPrediction]]:
    content = _json(path)
    if content is None:
        return None, []
    if not isinstance(content, dict):
        raise _damaged(path, "it is not an object")
    evaluation = _as(Evaluation, content.get("evaluation", content), path)
    lengths = {len(evaluation.confusion), *map(len, evaluation.confusion)}
    if lengths != {len(evaluation.classes)}:
        raise _damaged(path, f"the confusion matrix does not fit {len(evaluation.classes)} classes")
    predictions = [_as(ReportedPrediction, row, path) for row in content.get("predictions", [])]
    return evaluation, predictions


def _json(path: Path) -> Any:
    """The content of a JSON file, None where there is no file."""
    _bounded(path)
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path, "reading a run") from error


def _text(path: Path) -> str:
    _bounded(path)
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise storage_error(error, path, "reading a run") from error


def _bounded(path: Path) -> None:
    if path.exists() and path.stat().st_size > MOST_BYTES:
        raise _damaged(path, f"it is larger than {MOST_BYTES} bytes")


def _as(form: type[M], content: Any, path: Path) -> M:
    try:
        return form.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, f"{place}: {first['msg']}" if place else first["msg"]) from error


def _damaged(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError("a file of a run is not what was written", seen=f"{path}: {why}")
