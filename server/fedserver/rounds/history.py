"""Run history: records of closed rounds, which are stored, drawn, reported and never changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from fedspect.update.change import StepSize
from fedspect.update.checks import Step
from fedspect.update.round_messages import RoundReply

_RECORD = ConfigDict(frozen=True, extra="forbid")


class PlantResult(BaseModel):
    """What one plant brought into a round."""

    model_config = _RECORD

    plant: str
    late_by: int = 0
    """Rounds between the task and the round that used the answer; 0: in time."""
    num_examples: int
    """Pictures trained on, as the plant says."""
    counted: int | None = None
    """Pictures that the update counted for in the checks and in a mean; ``None`` when it was not used."""
    counts: dict[str, int]
    """The same by class."""
    weight: float = 0.0
    """The update's share of the average, from 0 to 1; 0 when there was none."""
    step: float = 0.0
    """The length of the update's step of the weights (``StepSize.weights``)."""
    step_of_statistics: float = 0.0
    """The same of its running statistics."""
    evaluated: int
    """Pictures that the received model was evaluated on."""
    metrics: dict[str, float]
    """Of the received model, before training."""
    confusion: list[list[int]] | None = None
    """Evaluation pictures by true class (rows) and answered class (columns)."""
    train_loss: float | None = None
    seconds: dict[str, float]
    """Time by part of the work, as the plant measured it."""
    remarks: list[str]
    """What the plant's engineer should know, in the plant's words."""
    bytes_up: int
    bytes_down: int

    @classmethod
    def of(cls, reply: RoundReply, *, late_by: int, bytes_up: int, bytes_down: int) -> PlantResult:
        """The result that an answer tells of; weight and step are known when the round closes."""
        return cls(
            plant=reply.plant,
            late_by=late_by,
            num_examples=reply.num_examples,
            counts=reply.counts,
            evaluated=reply.evaluated,
            metrics=reply.metrics,
            confusion=reply.confusion,
            train_loss=reply.train_loss,
            seconds=reply.seconds,
            remarks=reply.remarks,
            bytes_up=bytes_up,
            bytes_down=bytes_down,
        )


class Evaluation(BaseModel):
    """How good one version of the model is, on all plants' evaluation pictures."""

    model_config = _RECORD

    round: int
    """The round that made the version; 0 for what the run began with."""
    version: str
    evaluated: int
    """Pictures of all plants together."""
    mean: dict[str, float]
    """Each metric that every plant gave, weighted by the plants' evaluation pictures."""
    plants: dict[str, dict[str, float]]
    """Each plant's metrics."""
    confusion: list[list[int]] | None = None
    """All plants' confusion matrices added up, where every plant sent one."""

    @classmethod
    def of(cls, round_number: int, version: str, results: Iterable[PlantResult]) -> Evaluation | None:
        """What the plants' results say of the version; ``None`` when none of them evaluated it."""
        able = sorted((result for result in results if result.evaluated > 0), key=lambda one: one.plant)
        if not able:
            return None
        total = sum(result.evaluated for result in able)
        shared = set.intersection(*(set(result.metrics) for result in able))
        mean = {
            name: sum(result.metrics[name] * result.evaluated for result in able) / total
            for name in sorted(shared)
        }
        return cls(
            round=round_number,
            version=version,
            evaluated=total,
            mean=mean,
            plants={result.plant: result.metrics for result in able},
            confusion=_added([result.confusion for result in able]),
        )


class Refusal(BaseModel):
    """An update that was kept from the model."""

    model_config = _RECORD

    plant: str
    kind: str
    reason: str


class RoundRecord(BaseModel):
    """Everything worth knowing of a closed round."""

    model_config = _RECORD

    round: int
    version: str
    """The head that the round made."""
    parent: str
    """The head that it started from."""
    started: str
    """UTC, ISO 8601."""
    seconds: float
    plants: list[PlantResult]
    """Ordered by name; late updates from earlier rounds included."""
    refused: list[Refusal]
    lost: dict[str, str]
    """Plants that were asked and gave no update, with the reason."""
    evaluation: Evaluation | None
    """Of the parent, by the plants that answered in time."""
    train_loss: float | None
    """The plants' training losses, weighted by their pictures."""
    bytes_up: int
    bytes_down: int
    notes: list[str]
    """What the aggregation had to say, in sentences."""


def mean_train_loss(results: Iterable[PlantResult]) -> float | None:
    """The training losses of updates in time, weighted by pictures; ``None`` without any."""
    pairs = [
        (result.train_loss, result.num_examples)
        for result in results
        if result.train_loss is not None and result.num_examples and not result.late_by
    ]
    total = sum(examples for _, examples in pairs)
    return sum(loss * examples for loss, examples in pairs) / total if total else None


class RunHistory:
    """How a run has gone so far, for what the next round has to know of the ones before.

    Args:
        records: every closed round.
        evaluations: what is known of the version that each round made.
        metric: which mean says how good a version is; larger is better.

    """

    def __init__(self, records: list[RoundRecord], evaluations: dict[int, Evaluation], metric: str) -> None:
        self._records = records
        self._evaluations = evaluations
        self._metric = metric

    def add(self, record: RoundRecord) -> None:
        """Another round was closed."""
        self._records.append(record)
        if record.evaluation is not None:
            self._evaluations[record.evaluation.round] = record.evaluation

    def best(self) -> int | None:
        """The earliest round whose version is the best; ``None`` if none was measured."""
        return self._best_of(self._evaluations)

    def should_stop_early(self, patience: int | None) -> bool:
        """Whether the last ``patience`` versions that were measured are no better than one before.

        Only what the rounds themselves measured counts: an end that the closing evaluation could take back
        would be none.
        """
        measured = {one.round: one for record in self._records if (one := record.evaluation) is not None}
        best = self._best_of(measured)
        return patience is not None and best is not None and max(measured) - best >= patience

    def _best_of(self, evaluations: Mapping[int, Evaluation]) -> int | None:
        means = {number: one.mean for number, one in evaluations.items() if self._metric in one.mean}
        return min(means, key=lambda number: (-means[number][self._metric], number), default=None)

    def recent_steps(self, rounds: int) -> list[Step]:
        """The accepted steps of the last rounds, with the pictures that they counted for: what is usual."""
        return [
            Step(
                one.plant,
                StepSize(one.step, one.step_of_statistics),
                one.num_examples if one.counted is None else one.counted,  # as in records of earlier versions
            )
            for record in self._records[-rounds:]
            for one in record.plants
            if one.step > 0
        ]

    def seconds_for(self, rounds: int) -> float:
        """How long so many more rounds take, if they are like those before."""
        return rounds * sum(record.seconds for record in self._records) / len(self._records)


def _added(matrices: list[list[list[int]] | None]) -> list[list[int]] | None:
    known = [matrix for matrix in matrices if matrix is not None]
    if len(known) != len(matrices) or len({(len(m), *map(len, m)) for m in known}) != 1:
        return None
    return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*known, strict=True)]
