"""Version updater: finds and fetches published versions, has the worker deploy them, and reports what became of them.

``versions/`` in the plant's home::

    <hash>/           card.json and head.safetensors, as headquarters offers them
    outcomes.json     what became of each version here, and what headquarters was told

A version is tried once. If it is refused by the gate it stays out, whatever happens, until a person activates
it (`fedclient engines activate`). When the node starts, and once a day, the files of the line's engines are
looked at; damaged ones are built again, or named where a person decides (``automatic = false``). If it failed
for another reason (no memory, no disk, a dead worker) it is tried again after a minute, two, four, up to an
hour. If headquarters goes back to an earlier version, so does the plant.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedclient.engine_files import line_fault
from fedclient.node.home import PlantHome
from fedclient.node.node_status import NodeStatus
from fedclient.yield_policy import YieldPolicy
from fedspect import files
from fedspect.errors import DamagedFileError, FedspectError
from fedspect.protocol.versions import DeploymentReport

if TYPE_CHECKING:
    from fedspect.protocol.enrolment_pb2 import PublishedReply

FIRST_RETRY, LONGEST_RETRY = 60.0, 3600.0  # seconds
LOOK_AT_ENGINES = 86400.0  # seconds
LONGEST_REASON = 1000
MOST_OUTCOMES = 200  # the worker remembers longer what its plant went back from

logger = logging.getLogger("fedclient.node")


class VersionSource(Protocol):
    """The part of a session with headquarters (``session.Session``) that the updater uses."""

    def published(self) -> Optional[PublishedReply]: ...
    def fetch_version(self, home: PlantHome, version: PublishedReply) -> Path: ...
    def report_deployment(self, report: DeploymentReport) -> None: ...


class Deployer(Protocol):
    """The part of the worker supervisor that the updater uses."""

    def deploy(self, folder: str, number: int) -> bytes: ...


class DeploymentOutcome(BaseModel):
    """What became of one version."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    report: DeploymentReport
    at: float
    """Seconds since 1970."""
    tries: int = 1
    reported: bool = False

    @property
    def next_try(self) -> float:
        """When a failed version is tried again."""
        return self.at + min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** (self.tries - 1))


class DeploymentOutcomes(BaseModel):
    """``outcomes.json``."""

    model_config = ConfigDict(extra="ignore")

    last: str = ""
    """The version that was dealt with last."""
    serial: int = 0
    """The last move of the line's engines that headquarters was told of."""
    drifting: bool = False
    """Whether headquarters was told that the line's pictures are others than were learned from."""
    versions: Dict[str, DeploymentOutcome] = Field(default_factory=dict)


class VersionUpdater:
    """Handles published versions; ``look`` is called now and then, from one thread."""

    def __init__(
        self,
        home: PlantHome,
        worker: Deployer,
        yield_policy: YieldPolicy,
        status: NodeStatus,
        say: Callable[[str], None] = lambda text: None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._home = home
        self._worker = worker
        self._yield_policy = yield_policy
        self._status = status
        self._say = say
        self._clock = clock
        self._folder = home.folder / "versions"
        self._path = self._folder / "outcomes.json"
        self._next_look = 0.0
        self._fault: Optional[str] = None  # of the line's engines, that was named

    def look(self, session: VersionSource, base_hash: str) -> None:
        """Handle what is published, and report to headquarters what is new.

        Raises:
            FederationError: headquarters does not answer, or not as it should.
            StorageError: what it offers cannot be kept.

        """
        self._tell(session)
        offered = session.published()
        if offered is None or not self._wanted(offered, base_hash):
            return
        folder = session.fetch_version(self._home, offered)
        self._deal(offered, folder)
        self._tell(session)
        self._tidy(offered.version_hash)

    # -- parts ---------------------------------------------------------------------------------------------

    def _wanted(self, offered: PublishedReply, base_hash: str) -> bool:
        """Whether there is something to do about the published version; the status says what became of it."""
        outcomes = self._read()
        known = outcomes.versions.get(offered.version_hash)
        if known is not None:
            settled = known.report.outcome == "refused" or outcomes.last == offered.version_hash
            waits = known.report.outcome == "failed" and self._clock() >= known.next_try
            if settled and not waits and not self._to_mend(offered.version_hash):
                self._show(offered, known.report.outcome, "; ".join(known.report.reasons))
                return False
        if offered.base_hash != base_hash:
            self._show(offered, "waiting", "it is for another base model: join again")
            return False
        blocker = self._yield_policy.schedule_blocker()
        if blocker is not None:
            self._show(offered, "waiting", blocker.reason)
            return False
        return True

    def _to_mend(self, version: str) -> bool:
        """Whether the line should run this version and could not open its engines; only files are read."""
        if self._clock() < self._next_look:
            return False
        moved, fault = line_version(self._home), line_fault(self._home.folder)
        ours = fault is not None and (moved is None or moved["version"] == version)
        automatic = self._yield_policy.settings.versions.automatic
        if ours and fault != self._fault:  # once, however long the plant is paused
            become = (
                "are built again" if automatic else "are damaged; `fedclient engines build` builds them again"
            )
            logger.warning("the line's engines %s: %s", become, fault)
        self._fault = fault
        if not (ours and automatic):
            self._next_look = self._clock() + LOOK_AT_ENGINES
        return ours and automatic

    def _deal(self, offered: PublishedReply, folder: Path) -> None:
        if not self._yield_policy.settings.versions.automatic:
            self._show(offered, "waiting", "it is here; `fedclient engines build` makes engines of it")
            return
        self._show(offered, "deploying", "")
        self._next_look = self._clock() + LOOK_AT_ENGINES
        self._say(f"version {offered.number} is published; making engines of it")
        started = self._clock()
        try:
            content = json.loads(self._worker.deploy(str(folder), offered.number))
            report = DeploymentReport.model_validate(
                {**content, "version": offered.version_hash, "number": offered.number}
            )
        except (FedspectError, ValidationError, ValueError, TypeError) as error:
            report = DeploymentReport(
                version=offered.version_hash,
                number=offered.number,
                outcome="failed",
                reasons=[str(error)[:LONGEST_REASON]],
                seconds=max(0.0, self._clock() - started),
            )
        outcomes = self._read()
        known = outcomes.versions.get(offered.version_hash)
        tries = known.tries + 1 if known is not None and known.report.outcome == "failed" else 1
        outcomes.versions[offered.version_hash] = DeploymentOutcome(
            report=report, at=self._clock(), tries=tries
        )
        newest = sorted(outcomes.versions.items(), key=lambda pair: pair[1].at)[-MOST_OUTCOMES:]
        outcomes.versions = dict(newest)
        outcomes.last = offered.version_hash
        self._write(outcomes)
        reasons = "; ".join(report.reasons)
        self._show(offered, report.outcome, reasons)
        self._say(f"version {offered.number} was {report.outcome}{f': {reasons}' if reasons else ''}")

    def _tell(self, session: VersionSource) -> None:
        """Report what headquarters does not know: outcomes, and moves of the line's engines by hand."""
        outcomes = self._read()
        for version, outcome in list(outcomes.versions.items()):
            if not outcome.reported:
                session.report_deployment(outcome.report)
                outcomes.versions[version] = outcome.model_copy(update={"reported": True})
                moved = line_version(self._home)
                if moved is not None and moved["version"] == version:
                    outcomes.serial = moved["serial"]
                self._write(outcomes)
        moved = line_version(self._home)
        if moved is not None and moved["serial"] > outcomes.serial:
            event = "rolled-back" if moved["event"] == "rolled back" else "activated"
            reason = f"by {moved['who'] or 'the plant'}: {moved['why']}".strip(": ")
            session.report_deployment(
                DeploymentReport(
                    version=moved["version"],
                    number=moved["number"],
                    outcome=event,
                    reasons=[reason[:LONGEST_REASON]],
                )
            )
            outcomes.serial = moved["serial"]
            self._write(outcomes)
        drift = _drift_report(self._home, outcomes.drifting)
        if drift is not None:
            session.report_deployment(drift)
            outcomes.drifting = drift.outcome == "drifting"
            self._write(outcomes)

    def _show(self, offered: PublishedReply, outcome: str, why: str) -> None:
        found = {"number": offered.number, "version": offered.version_hash, "outcome": outcome, "why": why}
        if self._status.facts.get("version") != found:
            self._status.put(version=found)

    def _tidy(self, newest: str) -> None:
        """Remove old versions; kept are the last ones handled, the newest and the one that the line runs."""
        outcomes = self._read()
        moved = line_version(self._home)
        kept = {newest, moved["version"]} if moved is not None else {newest}
        by_age = sorted(outcomes.versions, key=lambda version: -outcomes.versions[version].at)
        kept.update(by_age[: self._yield_policy.settings.versions.keep])
        for folder in self._folder.iterdir():
            if folder.is_dir() and len(folder.name) == 64 and folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self) -> DeploymentOutcomes:
        try:
            return DeploymentOutcomes.model_validate(files.read_json(self._path))
        except FileNotFoundError:
            return DeploymentOutcomes()
        except (FedspectError, ValidationError) as error:
            logger.warning("what became of versions cannot be read and is begun anew: %s", error)
            return DeploymentOutcomes()

    def _write(self, outcomes: DeploymentOutcomes) -> None:
        files.write_json(self._path, outcomes.model_dump(mode="json"))


def line_version(home: PlantHome) -> dict[str, Any] | None:
    """The version that the line runs: version, number, at, event, who, why and serial of the move that made it
    so; ``None`` where there is none, or it cannot be read (`fedclient engines list` says why).
    """
    try:
        move = files.read_json(home.folder / "deployments" / "current.json")["move"]
        return {
            "version": str(move["version"]),
            "number": int(move["number"]),
            "at": float(move["at"]),
            "event": str(move["event"]),
            "who": str(move.get("who", "")),
            "why": str(move.get("why", "")),
            "serial": int(move.get("serial", 0)),
        }
    except (OSError, FedspectError, KeyError, TypeError, ValueError):
        return None


def _drift_report(home: PlantHome, told: bool) -> Optional[DeploymentReport]:
    """What is new for headquarters in ``line/drift.json``, which the line's process writes."""
    try:
        said = files.read_json(home.folder / "line" / "drift.json")
        drifting = said["state"] == "drift"
        if drifting == told or not (drifting or said["state"] == "as learned"):
            return None
        return DeploymentReport(
            version=said["version"],
            number=said["number"],
            outcome="drifting" if drifting else "as-learned",
            reasons=[str(reason)[:LONGEST_REASON] for reason in said["reasons"]],
            figures=dict(said["figures"]),
        )
    except (FileNotFoundError, DamagedFileError, KeyError, TypeError, ValueError):
        return None  # nobody watches, or the file is no report: the line's own log says more
