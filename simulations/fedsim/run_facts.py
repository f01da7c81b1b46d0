"""Run metadata, ``run.json``: what a run is and its state, updated while it runs."""

from __future__ import annotations

import importlib.metadata
import platform
import time
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fedsim.config import SimulationSettings
from fedsim.prepare import EVALUATION, TRAINING, counts, fixed_test_set, plant_pictures
from fedsim.report.model import DataFacts, ModelFacts, PlantFacts, ReportedRun
from fedsim.run_folder import Prepared, RunFolder
from fedspect.errors import DamagedFileError
from fedspect.files import read_json, write_json
from fedspect.model import freeze, head_state, load_base
from fedspect.model.base import CARD_FILE

PACKAGES = ("fedspect", "torch", "flwr", "numpy", "pillow")


class FactsFile:
    """The facts of one sitting of a run; every change is written at once."""

    def __init__(self, folder: RunFolder, facts: ReportedRun) -> None:
        self._folder = folder
        self._started = time.monotonic()
        self._seconds_before = facts.seconds
        self.facts = facts

    @classmethod
    def open(cls, folder: RunFolder, settings: SimulationSettings, command: str = "") -> FactsFile:
        """The file of a new run, or of one that goes on.

        Raises:
            DamagedFileError: it is not what was written.

        """
        try:
            facts = read_facts(folder)
        except FileNotFoundError:
            facts = _new_facts(folder, settings, command)
        file = cls(folder, facts)
        file.update(state="running", finished=None)
        return file

    def update(self, **changes: Any) -> None:
        """Change some facts and write them."""
        seconds = round(self._seconds_before + time.monotonic() - self._started, 2)
        self.facts = self.facts.model_copy(update={**changes, "seconds": seconds})
        write_json(self._folder.facts, self.facts.model_dump(mode="json"))

    def finish(self, state: str) -> None:
        """The end of this sitting: ``finished``, ``interrupted`` or ``failed``."""
        self.update(state=state, finished=_now())

    def prepared(self, settings: SimulationSettings, prepared: Prepared) -> None:
        """Add what preparation settled."""
        self.update(
            data=_data(self._folder, settings, prepared),
            model=_model(self._folder, settings, prepared),
            plants=_plants(self._folder, prepared),
        )


def read_facts(folder: RunFolder) -> ReportedRun:
    """The facts on disk.

    Raises:
        DamagedFileError: they are not what was written (``FileNotFoundError`` passes through).

    """
    try:
        return ReportedRun.model_validate(read_json(folder.facts))
    except ValueError as error:
        raise DamagedFileError(
            "the facts of the run are damaged", seen=f"{folder.facts}: {error}", remedy="start a new run"
        ) from error


def finished_facts(folder: RunFolder) -> ReportedRun | None:
    """The facts of a run that is over, with everything that it was to leave; None of any other."""
    made = (folder.facts, folder.evaluation, folder.model / CARD_FILE, folder.report)
    if not all(path.exists() for path in made):
        return None
    facts = read_facts(folder)
    return facts if facts.state == "finished" else None


def _new_facts(folder: RunFolder, settings: SimulationSettings, command: str) -> ReportedRun:
    federation, partition = settings.federation, settings.plants.partition
    dirichlet = f", alpha {settings.plants.alpha:g}" if partition == "dirichlet" else ""
    return ReportedRun(
        run_id=f"run-{uuid.uuid4().hex[:12]}",
        title=folder.path.name,
        started=_now(),
        command=command,
        rounds=federation.rounds,
        strategy=federation.strategy,
        partition=partition + dirichlet,
        backend=federation.backend,
        batch_norm=federation.batch_norm,
        encoding=federation.encoding,
        seed=settings.seed,
        environment=environment(),
    )


def environment() -> dict[str, str]:
    """What a result may depend on besides the settings."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _plants(folder: RunFolder, prepared: Prepared) -> list[PlantFacts]:
    found = []
    for plant in prepared.plants:
        pictures = plant_pictures(folder, prepared, plant)
        found.append(
            PlantFacts(name=plant, counts=counts(pictures[TRAINING]), evaluation=len(pictures[EVALUATION]))
        )
    return found


def _data(folder: RunFolder, settings: SimulationSettings, prepared: Prepared) -> DataFacts:
    data = settings.data
    test = fixed_test_set(folder, prepared)
    held = [plant_pictures(folder, prepared, plant) for plant in prepared.plants]
    kept = sum(len(each[TRAINING]) + len(each[EVALUATION]) for each in held)
    twins = int(read_json(folder.test)["twins_in_training"])
    kind = {
        "random": "picture by picture",
        "grouped": "by whole groups of overlapping pictures",
        "inspect": "by whole groups of overlapping pictures, as found",
        "manifest": "as the list says",
    }[prepared.split or data.split]
    leak = f"; {twins} of {len(test)} test pictures show a surface that training shows too" if twins else ""
    return DataFacts(
        source="synthetic surfaces" if data.folder is None else data.folder.name,
        root=Path(prepared.root),
        classes=prepared.classes,
        good_classes=data.good_classes,
        pictures=kept + len(test),
        left_out=prepared.left_out,
        train=kept,
        test=len(test),
        split=kind + leak,
    )


def _model(folder: RunFolder, settings: SimulationSettings, prepared: Prepared) -> ModelFacts:
    base = load_base(folder.base)
    network = base.network(prepared.classes, seed=settings.seed)
    freeze(network, prepared.freeze_levels)
    travelling = head_state(network, prepared.freeze_levels)
    start = settings.model
    return ModelFacts(
        architecture=base.card.architecture,
        base="fresh weights"
        if start.scratch
        else str(start.base.name if start.base else "the shipped default"),
        base_hash=base.content_hash,
        input_size=base.card.input_size,
        freeze_levels=prepared.freeze_levels,
        parameters=sum(each.numel() for each in network.parameters()),
        travelling=sum(each.numel() for each in travelling.values()),
    )


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)
