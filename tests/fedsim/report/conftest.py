"""A small run folder with everything in it, written with the parts that write real ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from PIL import Image

from fedserver.rounds.events import Event, PlantLost, RoundClosed, RunFinished
from fedserver.rounds.history import Evaluation as RoundEvaluation
from fedserver.rounds.history import PlantResult, Refusal, RoundRecord
from fedsim.report import DataFacts, ModelFacts, PlantFacts, ReportedRun
from fedsim.synthetic import CLASSES, draw_picture, picture_rng
from fedspect.files import append_line, write_json, write_text
from fedspect.training.metrics import Evaluation, evaluate
from fedspect.training.reports import Predictions


@dataclass(frozen=True)
class ModelTested(Event):
    round: int
    accuracy: float
    loss: float


@dataclass
class SampleRun:
    """What to put into a run folder; ``write`` puts it there."""

    folder: Path
    plants: int = 4
    rounds: int = 6
    classes: tuple[str, ...] = CLASSES
    good_classes: tuple[str, ...] = ()
    per_class: int = 8
    state: str = "finished"
    title: str = "Four plants, synthetic surfaces"
    remark: str = "no picture of scratches at this plant"
    reason: str = "the step is 41 times the median of the others"

    def write(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "config.toml", '[federation]\nrounds = 6\nstrategy = "fedavg"\n')
        write_text(self.folder / "run.json", self.facts().model_dump_json(indent=2))
        for event in self.events():
            append_line(self.folder / "metrics.jsonl", json.dumps(event.as_dict()))
        predictions = self.predictions()
        self._draw(predictions)
        rows = [
            {"name": name, "true": self.classes[label], "predicted": self.classes[int(row.argmax())],
             "confidence": float(row.max())}
            for name, label, row in zip(predictions.names, predictions.labels, predictions.probabilities)
        ]  # fmt: skip
        evaluation = evaluate(predictions, self.classes, good_classes=self.good_classes)
        write_json(
            self.folder / "evaluation.json",
            {"evaluation": evaluation.model_dump(mode="json"), "predictions": rows},
        )
        return self.folder

    def facts(self) -> ReportedRun:
        chance = np.random.default_rng(1)
        plants = [
            PlantFacts(
                name=f"plant-{number + 1}",
                counts={name: int(chance.integers(0, 40)) for name in self.classes},
                evaluation=20,
            )
            for number in range(self.plants)
        ]
        return ReportedRun(
            run_id="2024-05-06-a1",
            title=self.title,
            state=self.state,  # type: ignore[arg-type]
            started=datetime(2024, 5, 6, 14, 3, tzinfo=timezone.utc),
            finished=datetime(2024, 5, 6, 14, 5, tzinfo=timezone.utc),
            seconds=121.5,
            command="fedsim run --plants 4 --rounds 6 --seed 1",
            rounds=6,
            strategy="fedavg",
            partition="a Dirichlet draw with alpha 0.5",
            backend="local",
            batch_norm="average",
            encoding="int8",
            seed=1,
            data=DataFacts(
                source="synthetic surfaces",
                root=Path("pictures"),
                classes=list(self.classes),
                good_classes=list(self.good_classes),
                pictures=360,
                train=288,
                test=self.per_class * len(self.classes),
                split="by whole groups of overlapping pictures",
            ),
            model=ModelFacts(
                architecture="cdnv2-a", base="the base that ships with Fedspect", base_hash="ab" * 32,
                input_size=112, freeze_levels=8, parameters=1_250_000, travelling=610_000,
            ),
            plants=plants,
            environment={"python": "3.11.9", "torch": "2.15.0", "processor": "2 cores"},
        )  # fmt: skip

    def events(self) -> list[Event]:
        happened: list[Event] = []
        for number in range(1, self.rounds + 1):
            happened.append(
                RoundClosed(record=self.record(number), seconds_left=3.0 * (self.rounds - number))
            )
            happened.append(ModelTested(number, self.curve(number, 0.0), 2.0 * 0.6**number))
        happened.append(PlantLost(plant="plant-1", round=1, reason="for people only"))
        happened.append(
            RunFinished(rounds=self.rounds, version="c" * 64, stopped_early=False, evaluation=None)
        )
        return happened

    def curve(self, number: int, shift: float) -> float:
        return max(0.1, 0.95 - 0.75 * 0.55 ** (number + shift))

    def record(self, number: int) -> RoundRecord:
        plants = []
        for place in range(self.plants):
            name = f"plant-{place + 1}"
            if (number, name) == (3, "plant-2"):
                continue
            accuracy = self.curve(number - 1, 0.4 * place - 0.7)
            right = round(20 * accuracy)
            size = len(self.classes)
            confusion = [[3 if row == column else 0 for column in range(size)] for row in range(size)]
            confusion[0][-1] = 20 - right
            plants.append(
                PlantResult(
                    plant=name, num_examples=60, counts={self.classes[0]: 60}, evaluated=20, weight=0.25,
                    metrics={"accuracy": accuracy, "loss": 2.2 * 0.6 ** (number - 1) + 0.1 * place},
                    late_by=1 if (number, name) == (4, "plant-3") else 0, step=1.2,
                    confusion=confusion, train_loss=1.5 * 0.7**number, seconds={"train": 4.0, "total": 5.0},
                    remarks=[self.remark] if (number, name) in ((2, "plant-1"), (5, "plant-1")) else [],
                    bytes_up=160_000 + 900 * place, bytes_down=640_000 if number == 1 else 170_000,
                )
            )  # fmt: skip
        refused = [Refusal(plant="plant-4", kind="step", reason=self.reason)] if number == 2 else []
        return RoundRecord(
            round=number, version="c" * 64, parent="b" * 64, started="2024-05-06T14:03:00+00:00",
            seconds=6.0 + 0.4 * (number % 3), plants=plants, refused=refused,
            lost={"plant-2": "no answer within 600 s"} if number == 3 else {},
            evaluation=RoundEvaluation.of(number - 1, "b" * 64, plants), train_loss=1.5 * 0.7**number,
            bytes_up=sum(p.bytes_up for p in plants), bytes_down=sum(p.bytes_down for p in plants), notes=[],
        )  # fmt: skip

    def predictions(self) -> Predictions:
        chance = np.random.default_rng(2)
        size, count = len(self.classes), self.per_class * len(self.classes)
        labels = np.repeat(np.arange(size), self.per_class)
        scores = chance.normal(0, 1.3, (count, size))
        scores[np.arange(count), labels] += 3.0
        shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        names = tuple(f"{self.classes[label]}/{place:03d}.png" for place, label in enumerate(labels))
        return Predictions(shares.astype(np.float32), labels.astype(np.int64), names)

    def _draw(self, predictions: Predictions) -> None:
        for place, (name, label) in enumerate(zip(predictions.names, predictions.labels)):
            kind = CLASSES[int(label) % len(CLASSES)]
            path = self.folder / "pictures" / name
            if path.resolve().is_relative_to((self.folder / "pictures").resolve()):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw_picture(kind, 64, picture_rng(0, kind, place))).save(path)


@pytest.fixture
def sample(tmp_path: Path) -> Callable[..., SampleRun]:
    """Call it with what should differ."""

    def make(**changes: Any) -> SampleRun:
        return SampleRun(tmp_path / "run", **changes)

    return make


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, for tests that only read it or write pages into it."""
    return SampleRun(tmp_path_factory.mktemp("whole") / "run").write()


@pytest.fixture
def evaluation_of() -> Callable[[float], Evaluation]:
    """An evaluation of 120 pictures with about this share of right answers."""

    def make(accuracy: float) -> Evaluation:
        size, per_class = len(CLASSES), 20
        labels = np.repeat(np.arange(size), per_class)
        wrong = np.arange(len(labels)) % 20 >= round(20 * accuracy)
        answers = np.where(wrong, (labels + 1) % size, labels)
        shares = np.full((len(labels), size), 0.02, dtype=np.float32)
        shares[np.arange(len(labels)), answers] = 0.9
        names = tuple(f"{place}.png" for place in range(len(labels)))
        return evaluate(Predictions(shares, labels.astype(np.int64), names), CLASSES)

    return make
