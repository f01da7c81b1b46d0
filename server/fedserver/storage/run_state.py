"""Run state: what a run is and where it stands, as ``run_store`` writes it and the round loop resumes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fedserver.closed_form.settings import ClosedFormSettings
from fedserver.rounds.settings import RoundSettings
from fedspect.errors import DamagedFileError, WorkspaceError
from fedspect.files import read_json
from fedspect.update.downlink import ServedModelState
from fedspect.update.round_messages import ContentHash, RunId
from fedspect.update.schema import Arrays

FORMAT_VERSION = 2


class RunFacts(BaseModel):
    """What a run is; only ``rounds`` may be replaced, by a restart with other settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    run_id: RunId
    """Survives restarts; plants recognise a repeated round by it."""
    base_hash: ContentHash
    """The base model that every plant must hold."""
    classes: list[str]
    """The federation's classes, in order."""
    freeze_levels: int | None = None
    """Frozen levels of the base model; not set: what the base model recommends."""
    seed: int
    strategy: str
    strategy_options: dict[str, Any]
    rounds: RoundSettings
    closed_form: ClosedFormSettings | None = None
    """How the run's closed form is found; not set: the run begins at a new classifier."""


class ClientRecord(BaseModel):
    """Client record: what the server keeps of a plant from round to round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refusals: int = 0
    """Refused updates in a row."""
    quarantined: bool = False
    """Left out until an operator looks."""
    last_refusal: str | None = None
    last_round: int | None = None
    """The last round that used an update of this plant."""
    pictures: int | None = None
    """Training pictures when it first described itself in this run, or when an operator last let it in."""


@dataclass(frozen=True)
class RunState:
    """The state of a run after a round."""

    round: int
    served: ServedModelState
    moments: Arrays = field(default_factory=dict)
    """What the strategy carries on (``strategies.strategy_state``)."""
    plants: Mapping[str, ClientRecord] = field(default_factory=dict)


def read_facts(folder: Path) -> RunFacts:
    """What the run in a folder is.

    Raises:
        WorkspaceError: there is no run, or one of another format version.
        DamagedFileError: the file is not what was written.

    """
    path = folder / "run.json"
    try:
        facts = RunFacts.model_validate(read_json(path))
    except FileNotFoundError:
        raise WorkspaceError("there is no run here", seen=folder, remedy="check the path") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DamagedFileError(
            "a run's facts cannot be read",
            seen=f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            remedy="restore it from a backup of the workspace, or begin a new run",
        ) from error
    if facts.format_version != FORMAT_VERSION:
        raise WorkspaceError(
            "the run is of another format",
            seen=facts.format_version,
            accepted=str(FORMAT_VERSION),
            remedy="use the version of Fedspect that made it",
        )
    return facts
