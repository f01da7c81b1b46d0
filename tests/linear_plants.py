"""A plant small enough for tests of rounds: softmax regression in numpy, on pictures that are twelve numbers.

It is a real worker: it reads tasks, rebuilds the head that it was sent, evaluates it, trains, encodes its
change with error feedback and keeps what it must on disk, as ``PlantWorker`` does. Only the network is a
matrix. ``make_worker`` is named to engines as ``linear_plants:make_worker``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedclient.worker.training.plant_state import Carried, PlantState
from fedspect.update.change import change_between
from fedspect.update.downlink import receive_head
from fedspect.update.error_feedback import encode_with_feedback
from fedspect.update.round_messages import PlantDescription, ReplyError, RoundReply, RoundTask
from fedspect.update.schema import Arrays, Schema, is_statistic

CLASSES = ("dent", "good", "scratch")
BASE_HASH = "ba5e" * 16
FEATURES = 12


def start_head() -> Arrays:
    """What every run begins with: a norm's statistics, a weight and a bias."""
    return {
        "head.weight": np.random.default_rng(1).normal(size=(len(CLASSES), FEATURES)).astype(np.float32),
        "head.bias": np.zeros(len(CLASSES), dtype=np.float32),
        "norm.running_mean": np.zeros(FEATURES, dtype=np.float32),
        "norm.running_var": np.ones(FEATURES, dtype=np.float32),
    }


class LinearPlant:
    """One plant; its pictures follow from its name, so it can be made anew anywhere."""

    def __init__(self, name: str, folder: Path, *, pictures: int | None = None) -> None:
        self.name = name
        self.state = PlantState(folder, base_hash=BASE_HASH)
        draw = np.random.default_rng(sum(name.encode("ascii")))
        count = pictures if pictures is not None else int(draw.integers(20, 40))
        means = np.random.default_rng(7).normal(size=(len(CLASSES), FEATURES))
        self.labels = draw.integers(0, len(CLASSES), size=count)
        self.pictures = (means[self.labels] + draw.normal(size=(count, FEATURES))).astype(np.float32)
        self.tasks: list[RoundTask] = []

    def describe(self) -> bytes:
        """As a ``PlantDescription``."""
        return PlantDescription(
            plant=self.name,
            software="test",
            classes=list(CLASSES),
            counts=self._counts(),
            base_hash=BASE_HASH,
            holds=self.state.held(),
        ).to_bytes()

    def work(self, task: bytes) -> bytes:
        """One exchange."""
        asked = RoundTask.from_bytes(task)
        self.tasks.append(asked)
        try:
            return self.answer(asked).to_bytes()
        except Exception as error:
            return self.reply(asked, error=ReplyError.of(error)).to_bytes()

    def answer(self, task: RoundTask) -> RoundReply:
        """Evaluate, train, answer."""
        wanted = {
            name: values
            for name, values in start_head().items()
            if task.batch_norm == "average" or not is_statistic(name)
        }
        schema = Schema.of(wanted)
        held = self.state.head(task.version if task.payload_kind == "none" else task.holds or "", schema)
        head = receive_head(task.payload_kind, task.payload, version=task.version, schema=schema, held=held)
        self.state.keep_head(head, task.version)
        accuracy, loss, _ = self._measure(head)
        facts = {"evaluated": len(self.labels), "metrics": {"accuracy": accuracy, "loss": loss}}
        if not task.train:
            return self.reply(task, **facts)
        after = self.train(head, task)
        carried = self.state.before(task.run_id, task.round, schema)
        encoded = encode_with_feedback(
            change_between(head, after),
            carried.residual,
            encoding=task.reply_encoding,
            density=task.reply_density,
        )
        self.state.commit(task.run_id, task.round, Carried(encoded.residual))
        return self.reply(
            task,
            num_examples=len(self.labels),
            counts=self._counts(),
            train_loss=loss,
            payload=encoded.blob,
            **facts,
        )

    def train(self, head: Arrays, task: RoundTask) -> Arrays:
        """Full-batch gradient steps with FedProx's pull; statistics move halfway to the plant's own."""
        after = {name: values.copy() for name, values in head.items()}
        rate = np.float32(task.learning_rate or 0.5)
        for _ in range(task.local_epochs):
            _, _, slope = self._measure(after)
            pull = np.float32(task.proximal_mu)
            after["head.weight"] -= rate * (
                slope.T @ self.pictures + pull * (after["head.weight"] - head["head.weight"])
            )
            after["head.bias"] -= rate * (slope.sum(0) + pull * (after["head.bias"] - head["head.bias"]))
        if "norm.running_mean" in after:
            after["norm.running_mean"] += np.float32(0.5) * (
                self.pictures.mean(0) - after["norm.running_mean"]
            )
            after["norm.running_var"] += np.float32(0.5) * (self.pictures.var(0) - after["norm.running_var"])
        return after

    def reply(self, task: RoundTask, **facts: object) -> RoundReply:
        """An answer to the task."""
        return RoundReply(
            plant=self.name,
            run_id=task.run_id,
            round=task.round,
            base_hash=BASE_HASH,
            version=task.version,
            holds=self.state.held(),
            encoding=task.reply_encoding,
            **facts,
        )

    def _measure(self, head: Arrays) -> tuple[float, float, np.ndarray]:
        """Accuracy, loss and the loss's slope by logit."""
        logits = self.pictures @ head["head.weight"].T + head["head.bias"]
        odds = np.exp(logits - logits.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        rows = np.arange(len(self.labels))
        accuracy = float((odds.argmax(1) == self.labels).mean())
        loss = float(-np.log(odds[rows, self.labels]).mean())
        slope = odds.copy()
        slope[rows, self.labels] -= 1
        return accuracy, loss, slope / np.float32(len(self.labels))

    def _counts(self) -> dict[str, int]:
        return {name: int((self.labels == number).sum()) for number, name in enumerate(CLASSES)}


def make_worker(run_folder: Path, plant: str) -> LinearPlant:
    """The worker of a plant of a run."""
    return LinearPlant(plant, run_folder / "work" / plant)
