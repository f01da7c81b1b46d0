"""Deployment pipeline: from a published version to what the line runs, or to the reasons why not.

Version -> network -> deploy graphs -> engines -> gate -> deployment. The pointer of ``deployments`` moves at the
very end and by one rename: whatever goes wrong before, and whenever the process dies, the line keeps what it
runs, and a second try finds the engines that the first has finished.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np

from fedclient.worker.deployments import Deployment, Deployments
from fedclient.worker.deployments.record import deployment_id
from fedclient.worker.engines import EngineStore, LineModel, open_model
from fedclient.worker.gate.candidate import Candidate, read_candidate, read_card
from fedclient.worker.gate.drift_reference import leave_bounds, leave_reference, own_pictures
from fedclient.worker.gate.earlier_decisions import Decision, earlier_decision, gone_back
from fedclient.worker.gate.engine_building import Report, build_engines
from fedclient.worker.gate.evidence import drawn_pictures, gather, trained_logits
from fedclient.worker.gate.gate_report import GateReport, decide
from fedclient.worker.gate.settings import DeploySettings, read_deploy_settings
from fedclient.worker.golden import GoldenSet
from fedclient.worker.golden.choosing import GOLDEN
from fedclient.worker.line.settings import read_settings
from fedclient.worker.settings import WorkerSettings
from fedclient.worker.training.plant_state import PlantState
from fedclient.worker.training.setup import Site, bit_depth_of
from fedspect.errors import (
    ClassError,
    DamagedFileError,
    DataError,
    FedspectError,
    StorageError,
    UpdateRefusedError,
)
from fedspect.locking import Occupied
from fedspect.model.base import BaseNetwork, load_base
from fedspect.protocol.versions import DeploymentReport, Outcome, VersionCard

logger = logging.getLogger("fedclient.worker.gate")

UNNAMED = "0" * 64
LONGEST_REASON = 500


class Deployer:
    """Makes deployments of a plant's versions. One at a time: other processes are told so."""

    def __init__(
        self, settings: WorkerSettings, site: Callable[[], Site], *, look_again: bool = True
    ) -> None:
        """``site`` gives the plant's pictures, for the golden share: each time, or (not ``look_again``) only
        where there is no golden set yet.
        """
        self.settings = settings
        self.home = settings.home
        self.deployments = Deployments(self.home / "deployments")
        self.store = EngineStore(self.home / "engines")
        self.golden = GoldenSet(self.home / "golden")
        self._site = site
        self._look_again = look_again
        self._base: Optional[BaseNetwork] = None

    def deploy(
        self,
        folder: Path,
        *,
        number: Optional[int] = None,
        who: str = "headquarters",
        why: str = "published",
        activate: bool = True,
        again: bool = False,
        overrides: Optional[Mapping[str, Any]] = None,
        report: Report = lambda stage, done, total: None,
        cancel: Optional[threading.Event] = None,
    ) -> DeploymentReport:
        """Build a version's engines, take them through the gate and let the line run them.

        ``activate=False`` stops after the gate. A version that the line runs already (with whole engines), or
        that this plant went back from, is answered without work unless ``again``. ``overrides``
        go before engines.toml, by dotted key.

        Returns:
            What became of it; never raises but for an interrupt.

        """
        begun = time.monotonic()
        version, told = _name_of(folder), number or 0
        figures: Dict[str, Any] = {}
        outcome: Outcome = "failed"
        reasons: List[str] = []
        try:
            with Occupied(self.home / "deployments" / "deploying", "a deployment on this device"):
                report("version", 0, 1)
                card = read_card(folder)
                _check_name(card, version, number)
                version, told = card.content_hash, card.number
                decision = None if again else earlier_decision(self.deployments, self.store, card)
                if decision is None and activate and not again:
                    decision = gone_back(self.deployments, self.store, card, who)
                if decision is None:
                    settings = read_deploy_settings(self.home, overrides)
                    decision = self._run(folder, card, settings, who, why, activate, report, cancel)
                outcome, reasons, figures = decision
        except (UpdateRefusedError, ClassError) as error:
            outcome, reasons = "refused", [self._unplaced(error)]
            self._note("refused", version, told, who, str(error))
        except FedspectError as error:
            outcome, reasons = "failed", [self._unplaced(error)]
            self._note("failed", version, told, who, str(error))
        except Exception as error:  # memory, a defect: the line goes on, and headquarters is told
            logger.exception("a deployment failed")
            outcome, reasons = "failed", [f"the worker failed: {type(error).__name__}: {error}"]
            self._note("failed", version, told, who, reasons[0])
        return DeploymentReport(
            version=version,
            number=told,
            outcome=outcome,
            reasons=[each[:LONGEST_REASON] for each in reasons[:50]],
            figures=figures,
            seconds=round(time.monotonic() - begun, 3),
        )

    def base(self) -> BaseNetwork:
        """The plant's base model, read at the first need."""
        if self._base is None:
            self._base = load_base(self.settings.base)
        return self._base

    def bit_depth(self) -> Optional[int]:
        """Of the plant's camera; what a deployment was tried with is what the line reads with.

        ``None`` where nothing is declared and no picture tells.
        """
        try:
            return bit_depth_of(self.settings.state)
        except (FileNotFoundError, DamagedFileError):
            pass
        try:
            return self._site().inspection.bit_depth
        except DataError:
            return None

    def refresh_golden(self, limit: int) -> Tuple[str, ...]:
        """Take what the held-out share has gained into the golden set; remarks.

        Pictures that cannot be listed now do not matter while there is a set.

        """
        try:
            self.golden.take(self._site().split.sides[GOLDEN], limit)
        except DataError as error:
            return (f"no new golden pictures were looked for: {self._unplaced(error)}"[:300],)
        return ()

    # -- parts ---------------------------------------------------------------------------------------------

    def _run(
        self,
        folder: Path,
        card: VersionCard,
        settings: DeploySettings,
        who: str,
        why: str,
        activate: bool,
        report: Report,
        cancel: Optional[threading.Event],
    ) -> Decision:
        candidate = read_candidate(
            folder,
            self.base(),
            self.settings.classes,
            freeze_levels=self.settings.freeze_levels,
            state=PlantState(self.settings.state, base_hash=self.base().content_hash),
            seed=self.settings.seed,
        )
        self._check_answers(candidate)
        engines, seconds = build_engines(
            candidate,
            self.base(),
            self.settings.classes,
            settings.engine,
            self.store,
            scratch=self.home / "deployments" / "candidate",
            report=report,
            cancel=cancel,
        )
        report("golden", 0, 1)
        remarks: Tuple[str, ...] = ()
        if self._look_again or not self.golden.exists():
            remarks = self.refresh_golden(settings.gate.golden_limit)
        bit_depth = self.bit_depth()
        deployment = Deployment(
            id=deployment_id(card.number, card.content_hash, engines, bit_depth),
            version=card.content_hash,
            number=card.number,
            classes=tuple(self.settings.classes),
            base_hash=card.base_hash,
            engines=engines,
            bit_depth=bit_depth,
        )
        verdict = self._gate(candidate, deployment, settings, remarks, report)
        figures = {**verdict.figures, "seconds": seconds, "own_statistics": candidate.own_statistics}
        deployment = deployment.model_copy(update={"figures": figures})
        report("deployment", 0, 1)
        kept = self.deployments.add(deployment, who=who, why=why, refused=verdict.reasons)
        if not verdict.passed:
            return "refused", list(verdict.reasons), figures
        if kept.state == "retired":
            return "refused", [f"it is retired: {'; '.join(kept.reasons)}"], figures
        if activate:
            self._activate(deployment, settings, who, why)
        report("deployment", 1, 1)
        return "activated", [] if activate else [f"built as {deployment.id}, not activated"], figures

    def _check_answers(self, candidate: Candidate) -> None:
        """See that the network answers numbers at all, before anything is built of it."""
        preprocessing = self.base().preprocessing
        logits = trained_logits(candidate.network, preprocessing, drawn_pictures(preprocessing))
        bad = int((~np.isfinite(logits)).any(axis=1).sum())
        if bad:
            raise UpdateRefusedError(
                "the version's network answers with something that is no number",
                seen=f"{bad} of {len(logits)} drawn pictures",
                remedy="headquarters should retire it: the run that made it diverged",
            )

    def _gate(
        self,
        candidate: Candidate,
        deployment: Deployment,
        settings: DeploySettings,
        remarks: Tuple[str, ...],
        report: Report,
    ) -> GateReport:
        preprocessing = self.base().preprocessing.of_camera(deployment.bit_depth)
        golden = self.golden.load(preprocessing)
        threads = settings.engine.threads
        report("gate", 0, 1)
        with ExitStack() as opened:
            mine = open_model(deployment, self.store, threads=threads)
            opened.callback(mine.close)
            current, more = self._current(threads)
            if current is not None:
                opened.callback(current.close)
            evidence = gather(
                candidate.network,
                preprocessing,
                golden,
                deployment.classes,
                mine,
                current,
                runs=settings.gate.runs,
                report=report,
                remarks=(*remarks, *more),
            )
        return decide(evidence, settings.gate, read_settings(self.home / "line").verdicts)

    def _activate(self, deployment: Deployment, settings: DeploySettings, who: str, why: str) -> None:
        """Let the line run it, with the plant's bounds there before it and the drift reference after it."""
        preprocessing = self.base().preprocessing.of_camera(deployment.bit_depth)
        line = self.home / "line"
        pixels: Optional[np.ndarray] = None
        with suppress(FedspectError):
            pixels = own_pictures(self.golden.load(preprocessing).pixels, self._site, preprocessing)
            leave_bounds(line / "reference", pixels, preprocessing)
        self.deployments.activate(deployment.id, who=who, why=why)
        if pixels is None:
            return
        with suppress(FedspectError), ExitStack() as opened:
            model = open_model(deployment, self.store, threads=settings.engine.threads)
            opened.callback(model.close)
            window = read_settings(line).drift.window
            leave_reference(line / "reference", model, deployment.base_hash, pixels, window=window)

    def _current(self, threads: int) -> Tuple[Optional[LineModel], Tuple[str, ...]]:
        """The current engine opened; one that cannot be opened is not compared with, and a remark says so."""
        try:
            deployment = self.deployments.current()
            if deployment is None:
                return None, ()
            return open_model(deployment, self.store, threads=threads), ()
        except FedspectError as error:
            return None, (f"the current engine is not compared: {self._unplaced(error)}"[:300],)

    def _unplaced(self, error: FedspectError) -> str:
        """The error without this device's paths, for headquarters."""
        return str(error).replace(str(self.settings.data), "DATA").replace(str(self.home), "HOME")

    def _note(self, event: Any, version: str, number: int, who: str, why: str) -> None:
        with suppress(StorageError):  # a full disk is in the report already
            self.deployments.note(event, version, number, who=who, why=why[:LONGEST_REASON])


def _name_of(folder: Path) -> str:
    return folder.name if re.fullmatch("[0-9a-f]{64}", folder.name) else UNNAMED


def _check_name(card: VersionCard, version: str, number: Optional[int]) -> None:
    if version not in (UNNAMED, card.content_hash) or number not in (None, 0, card.number):
        raise DamagedFileError(
            "a version's folder holds another version",
            seen=f"number {card.number}, {card.content_hash[:12]}",
            accepted=f"number {number}, {version[:12]}",
            remedy="remove the folder; the plant fetches it again",
        )
