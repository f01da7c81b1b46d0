"""Comparison: each plant alone, the federation, and all pictures in one place, on one test set.

All arms start from the same base model, see the same training pictures for the same number of epochs, and are
measured on the same pictures that none of them has. An arm that is finished is on disk: a comparison that was
interrupted goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fedsim.central_evaluation import CentralTest
from fedsim.config import SimulationSettings
from fedsim.prepare import EVALUATION, TRAINING, counts, plant_pictures
from fedsim.report import Arm, Comparison, write_comparison, write_figures, write_report
from fedsim.run import NoView, View, finish_run, interruptible, prepare_run
from fedsim.run_facts import environment, read_facts
from fedsim.run_folder import Prepared, RunFolder
from fedspect.data.pictures import CheckedPicture
from fedspect.errors import DamagedFileError, SettingsError
from fedspect.files import read_json, write_json
from fedspect.seeds import derived_seed
from fedspect.training.metrics import Evaluation
from fedspect.training.reports import ProgressEvent

ARMS = ("alone", "federated", "pooled")
ASKED = "asked.json"


@dataclass(frozen=True)
class Compared:
    """What a comparison came to; arms that were not asked for are missing."""

    folder: Path
    alone: list[Arm]
    federation: Arm | None
    together: Arm | None
    held: dict[str, dict[str, int]]
    """By plant, its training pictures by class."""
    report: Path | None
    """The page, where the federation is among the arms."""


def chosen_arms(text: str) -> list[str]:
    """The arms in a list such as ``alone,federated``.

    Raises:
        SettingsError: one of them does not exist.

    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in ARMS]
    if unknown or not names:
        raise SettingsError("an arm is unknown", seen=", ".join(unknown) or "none", accepted=", ".join(ARMS))
    return [arm for arm in ARMS if arm in names]


def arms_asked(path: Path) -> list[str]:
    """The arms that the comparison in ``path`` was started with; all where nobody wrote them down.

    Raises:
        SettingsError: one of them does not exist.
        DamagedFileError: they cannot be read.

    """
    try:
        return chosen_arms(",".join(read_json(path / ASKED)["arms"]))
    except FileNotFoundError:
        return list(ARMS)
    except (KeyError, TypeError) as error:
        raise DamagedFileError(
            "what a comparison was asked for is damaged",
            seen=f"{path / ASKED}: {error}",
            remedy="say it again with --arms",
        ) from error


def compare(
    path: Path,
    settings: SimulationSettings,
    *,
    arms: Sequence[str] = ARMS,
    view: View | None = None,
    command: str = "",
) -> Compared:
    """Compare ways of training, in the folder ``path``; arms that are finished there are not run again.

    Raises:
        WorkspaceError: the folder holds something else.
        InterruptedRunError: Ctrl-C; what was finished is on disk.
        FedspectError: whatever else makes it impossible to go on.

    """
    watch = view or NoView()
    folder = RunFolder(path / "federation")
    again = f"fedsim compare --resume --output {path}"
    with interruptible(path, again):
        prepared = prepare_run(folder, settings, view=watch, command=command)
        write_json(path / ASKED, {"arms": list(arms), "state": "running"})
        sides = {plant: plant_pictures(folder, prepared, plant) for plant in prepared.plants}
        pictures = {plant: held[TRAINING] for plant, held in sides.items()}
        alone: list[Arm] = []
        if "alone" in arms:
            for plant, held in sides.items():
                arm = _Arm(plant, path / "alone" / f"{plant}.json", held[TRAINING], held[EVALUATION])
                alone.append(arm.result(folder, prepared, settings, watch))
        together = None
        if "pooled" in arms:
            everything = {
                side: [each for held in sides.values() for each in held[side]]
                for side in (TRAINING, EVALUATION)
            }
            arm = _Arm("together", path / "together.json", everything[TRAINING], everything[EVALUATION])
            together = arm.result(folder, prepared, settings, watch)
        federation = None
        if "federated" in arms:
            outcome = finish_run(folder, view=watch)
            federation = Arm(
                name="federation",
                evaluation=outcome.evaluation,
                seconds=outcome.seconds,
                pictures=sum(map(len, pictures.values())),
            )
    held_classes = {plant: counts(each) for plant, each in pictures.items()}
    report = None
    if federation is not None:
        comparison = Comparison(
            federation=federation,
            together=together,
            alone=alone,
            counts=held_classes,
            command=read_facts(folder).command,
            seed=settings.seed,
            environment=environment(),
        )
        with watch.stage("writing the report"):
            report = write_comparison(path, comparison)
            write_figures(folder.path)  # the federation's own page shows what joining gained, too
            write_report(folder.path)
    write_json(path / ASKED, {"arms": list(arms), "state": "finished"})
    return Compared(path, alone, federation, together, held_classes, report)


@dataclass(frozen=True)
class _Arm:
    """One training in one place, kept in a file once it is finished."""

    name: str
    file: Path
    pictures: list[CheckedPicture]
    evaluation: list[CheckedPicture]
    """By which it stops early, where that is asked for."""

    def result(self, folder: RunFolder, prepared: Prepared, settings: SimulationSettings, view: View) -> Arm:
        """What it reached: from its file, or by training now."""
        try:
            return Arm.model_validate(read_json(self.file))
        except FileNotFoundError:
            pass
        except ValidationError as error:
            raise DamagedFileError(
                "the result of an arm is damaged", seen=self.file, remedy="remove it"
            ) from error
        title = "all pictures in one place" if self.name == "together" else f"{self.name} alone"
        test = CentralTest(
            folder, prepared, settings, seed=derived_seed("arm", self.name, settings.seed), closed_form=False
        )
        federation = settings.federation
        epochs = federation.rounds * federation.local_epochs
        patience = (federation.early_stop or 0) * federation.local_epochs
        with view.stage(title) as tell:

            def progress(event: ProgressEvent) -> None:
                if event.stage == "training" and event.epoch is not None:
                    tell(event.epoch * event.total + event.done, epochs * event.total)

            report = test.trainer.fit(
                self.pictures,
                epochs=epochs,
                validation=self.evaluation if patience else None,
                patience=patience,
                progress=progress,
            )
            evaluation = test.evaluate(test.predict())
        arm = Arm(
            name=self.name,
            evaluation=evaluation,
            seconds=report.seconds,
            pictures=len(self.pictures),
            epochs=len(report.epochs),
        )
        write_json(self.file, arm.model_dump(mode="json"))
        return arm


# -- what joining gained -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gain:
    """What joining gained one plant; shares of the fixed test set, None where nothing was to be measured."""

    plant: str
    pictures: int
    alone: float
    joined: float | None
    lacks: list[str]
    """Classes of which the plant has no training picture."""
    lacking_alone: float | None
    lacking_joined: float | None
    weakest: str
    """The class of which the plant alone finds the least."""
    weakest_alone: float | None
    weakest_joined: float | None


def gains(compared: Compared) -> list[Gain]:
    """By plant, what it reaches alone and what it reaches having joined."""
    found = []
    for arm in compared.alone:
        joined = None if compared.federation is None else compared.federation.evaluation
        lacks = [each.name for each in arm.evaluation.classes if not compared.held[arm.name].get(each.name)]
        measured = [(each.recall, each.name) for each in arm.evaluation.classes if each.recall is not None]
        weakest = min(measured)[1]
        found.append(
            Gain(
                plant=arm.name,
                pictures=arm.pictures,
                alone=arm.evaluation.accuracy,
                joined=None if joined is None else joined.accuracy,
                lacks=lacks,
                lacking_alone=found_of(arm.evaluation, lacks),
                lacking_joined=None if joined is None else found_of(joined, lacks),
                weakest=weakest,
                weakest_alone=found_of(arm.evaluation, [weakest]),
                weakest_joined=None if joined is None else found_of(joined, [weakest]),
            )
        )
    return found


def found_of(evaluation: Evaluation, classes: Sequence[str]) -> float | None:
    """The mean share that is found of some classes; None if none of them has test pictures."""
    recalls = [each.recall for each in evaluation.classes if each.name in classes and each.recall is not None]
    return sum(recalls) / len(recalls) if recalls else None
