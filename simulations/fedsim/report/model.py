"""Data model of the reports: the content of a run folder.

``reading.load_run`` turns a run folder into one ``RunSummary``; everything that people look at is made from
that alone. ``docs/reports.md`` lists the files and the rows of ``metrics.jsonl``. Fields that are unknown are
ignored and those that are missing stay empty: a run that was broken off, or is still going on, has a report.

Shares (accuracy, precision, ...) are between 0 and 1, times in seconds, sizes in bytes.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal, Optional

from pydantic import BaseModel, ConfigDict, Field

from fedspect.report.formatting import natural_order as natural_order
from fedspect.training.metrics import Evaluation


class Record(BaseModel):
    """The parent of everything read from a run folder."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=True, use_attribute_docstrings=True)


class DataFacts(Record):
    """The pictures of a run."""

    source: str = ""
    """What was trained on, as a person would name it."""
    root: Optional[Path] = None
    """The folder that the names of predictions are relative to, itself relative to the run folder if it lies
    in it; thumbnails are read from there."""
    classes: list[str] = Field(default_factory=list)
    good_classes: list[str] = Field(default_factory=list)
    """Classes that are no defect; escapes and false rejects are counted against them."""
    pictures: int = 0
    left_out: int = 0
    """Files that could not be used."""
    train: int = 0
    test: int = 0
    split: str = ""
    """How training and test pictures were kept apart, in words."""


class ModelFacts(Record):
    """The network of a run."""

    architecture: str = ""
    base: str = ""
    """Where the base model came from, in words."""
    base_hash: str = ""
    input_size: int = 0
    freeze_levels: int = 0
    parameters: int = 0
    travelling: int = 0
    """Parameters that travel between plant and server."""


class PlantFacts(Record):
    """One plant's share of the pictures."""

    name: str
    counts: dict[str, int] = Field(default_factory=dict)
    """Training pictures by class."""
    evaluation: int = 0
    """Pictures kept back at the plant to judge each round."""

    @property
    def pictures(self) -> int:
        """Training pictures."""
        return sum(self.counts.values())


class ReportedRun(Record):
    """``run.json``: what was asked for and where the run stands."""

    format_version: int = 1
    run_id: str = ""
    title: str = ""
    state: Literal["running", "interrupted", "failed", "finished"] = "running"
    started: Optional[datetime] = None
    finished: Optional[datetime] = None
    seconds: float = 0.0
    """Time spent, over all sittings of a run that was resumed."""
    command: str = ""
    """The command line that makes this run again."""
    rounds: int = 0
    """Rounds planned."""
    strategy: str = ""
    partition: str = ""
    backend: str = ""
    batch_norm: str = ""
    encoding: str = ""
    seed: int = 0
    data: DataFacts = DataFacts()
    model: ModelFacts = ModelFacts()
    plants: list[PlantFacts] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)


class ReportedPrediction(Record):
    """One test picture's answer."""

    name: str
    true: str
    predicted: str
    confidence: float
    """The probability that the model gave its answer."""
    heat_map: Optional[str] = None
    """A PNG in the run folder that shows where the model looked, if one was made."""

    @property
    def wrong(self) -> bool:
        """Whether the answer is another class."""
        return self.true != self.predicted


class PlantRound(Record):
    """One plant's part in one round (``fedserver.history.PlantResult``, or why there is none)."""

    plant: str
    state: Literal["used", "late", "refused", "lost"] = "used"
    """``late`` updates were used too, with less weight."""
    reason: str = ""
    late_by: int = 0
    """Rounds between the task and the round that used the answer."""
    num_examples: int = 0
    """Pictures trained on."""
    counts: dict[str, int] = Field(default_factory=dict)
    evaluated: int = 0
    """Pictures that the received model was judged on, before training."""
    metrics: dict[str, float] = Field(default_factory=dict)
    confusion: Optional[list[list[int]]] = None
    train_loss: Optional[float] = None
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: dict[str, float] = Field(default_factory=dict)
    remarks: list[str] = Field(default_factory=list)
    """What the plant had to say."""

    @property
    def accuracy(self) -> Optional[float]:
        """Of the model that the plant received, on its own evaluation pictures."""
        return self.metrics.get("accuracy") if self.evaluated else None

    @property
    def loss(self) -> Optional[float]:
        """The received model's loss on the same pictures."""
        return self.metrics.get("loss", self.metrics.get("log_loss")) if self.evaluated else None


class RoundFacts(Record):
    """One closed round (``fedserver.history.RoundRecord``)."""

    round: int
    version: str = ""
    seconds: float = 0.0
    train_loss: Optional[float] = None
    plants: list[PlantRound] = Field(default_factory=list)
    """Ordered by name; those refused or lost included."""
    bytes_down: int = 0
    bytes_up: int = 0
    notes: list[str] = Field(default_factory=list)
    tested_accuracy: Optional[float] = None
    """Of the model that this round made, on the test pictures, where the run measured it."""
    tested_loss: Optional[float] = None

    @property
    def received_accuracy(self) -> Optional[float]:
        """The plants' accuracy with the model that they received, weighted by their evaluation pictures."""
        judged = [(p.accuracy, p.evaluated) for p in self.plants if p.accuracy is not None and not p.late_by]
        total = sum(weight for _, weight in judged)
        return sum(accuracy * weight for accuracy, weight in judged) / total if total else None


class ClosingEvaluation(Record):
    """The last model, at the plants (``fedserver.history.Evaluation``)."""

    round: int
    plants: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Each plant's metrics."""


class Arm(Record):
    """One way of training in a comparison, judged on the same test pictures as the others."""

    name: str
    """``federation``, ``together`` or a plant's name."""
    evaluation: Evaluation
    seconds: float = 0.0
    pictures: int = 0
    """Pictures trained on."""
    epochs: Optional[int] = None
    """Passes over them, where training was in one place; fewer than planned where it stopped early."""


class Comparison(Record):
    """``comparison.json``: each plant alone, the federation, and all pictures in one place."""

    federation: Arm
    together: Optional[Arm] = None
    alone: list[Arm] = Field(default_factory=list)
    counts: dict[str, dict[str, int]] = Field(default_factory=dict)
    """By plant, its training pictures by class."""
    title: str = ""
    command: str = ""
    seed: int = 0
    environment: dict[str, str] = Field(default_factory=dict)


class ReportFinding(Record):
    """Something that a plant or the server wanted a person to know."""

    who: str
    text: str
    rounds: list[int]


class RunSummary(Record):
    """All that a report shows of a run."""

    folder: Path
    facts: ReportedRun
    rounds: list[RoundFacts] = Field(default_factory=list)
    closing: Optional[ClosingEvaluation] = None
    final: Optional[Evaluation] = None
    """On the test pictures."""
    predictions: list[ReportedPrediction] = Field(default_factory=list)
    comparison: Optional[Comparison] = None
    settings: str = ""
    """``config.toml`` as it is."""
    damaged_rows: int = 0
    """Rows of ``metrics.jsonl`` that could not be read."""

    @property
    def picture_root(self) -> Optional[Path]:
        """The folder of the pictures, if it is known."""
        return None if self.facts.data.root is None else self.folder / self.facts.data.root

    @property
    def plant_names(self) -> list[str]:
        """Every plant that was known or answered, in natural order."""
        names = {plant.name for plant in self.facts.plants}
        names |= {part.plant for closed in self.rounds for part in closed.plants}
        return sorted(names, key=natural_order)

    @property
    def troubles(self) -> list[tuple[int, PlantRound]]:
        """Every time a plant's work did not count in full, with the round."""
        return [(r.round, part) for r in self.rounds for part in r.plants if part.state != "used"]

    @property
    def remarks(self) -> list[ReportFinding]:
        """What plants and the server had to say, each text once, in the order in which it was said first."""
        said: dict[tuple[str, str], list[int]] = {}
        for closed in self.rounds:
            for part in closed.plants:
                for text in part.remarks:
                    said.setdefault((part.plant, text), []).append(closed.round)
            for text in closed.notes:
                said.setdefault(("server", text), []).append(closed.round)
        return [ReportFinding(who=who, text=text, rounds=rounds) for (who, text), rounds in said.items()]


def weakest_class(evaluation: Evaluation) -> Optional[tuple[str, float]]:
    """The class of which the smallest share is found, and that share; None without test pictures."""
    judged = [(figures.recall, figures.name) for figures in evaluation.classes if figures.recall is not None]
    return None if not judged else (min(judged)[1], min(judged)[0])
