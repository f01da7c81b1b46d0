"""Round state: one round while it is open, what is asked, who answered, who failed, and which answers wait on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedserver.aggregation.aggregator import Aggregate
from fedserver.aggregation.checking import Accepted, Spooled
from fedserver.rounds.events import RoundContext
from fedserver.rounds.history import Evaluation, PlantResult, Refusal, RoundRecord, mean_train_loss
from fedspect.errors import storage_error
from fedspect.update.checks import STRAY_STATISTICS, Expected
from fedspect.update.downlink import ServedModelState
from fedspect.update.round_messages import RoundTask
from fedspect.update.schema import Schema

OTHER_BASE = (
    "the base model's running statistics are far from what it makes of the plants' pictures: "
    "train it longer, or begin with another base model"
)


class Tasks:
    """The tasks of a round as bytes: one for each version that some plant holds, made once."""

    def __init__(self, served: ServedModelState, **facts: Any) -> None:
        self.schema = Schema.of(served.head).changing
        self._served = served
        self._facts = facts
        self._made: dict[str | None, tuple[str, bytes]] = {}

    def for_holder_of(self, version: str | None) -> tuple[str, bytes]:
        """The payload's kind and the task's bytes for a plant that holds this version (or none)."""
        if version not in self._made:
            kind, payload = self._served.payload_for(version)
            if kind == "full" and version is not None:
                self._made[version] = self.for_holder_of(None)
            else:
                task = RoundTask(
                    **self._facts,
                    version=self._served.version,
                    payload_kind=kind,
                    holds=version if kind == "change" else None,
                    payload=payload,
                )
                self._made[version] = (kind, task.to_bytes())
        return self._made[version]


@dataclass
class RoundState:
    """What is known of an open round; nothing here outlives it."""

    context: RoundContext
    tasks: Tasks
    spool: Path
    open_plants: set[str] = field(default_factory=set)
    """Asked in this round, and not yet heard of."""
    results: dict[str, PlantResult] = field(default_factory=dict)
    """What plants answered."""
    updates: dict[str, Spooled] = field(default_factory=dict)
    """Answers that hold a change: those of this round, and late ones."""
    refused: dict[str, Refusal] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    """Plants that were asked and failed, with the reason."""
    failed_at: dict[str, float] = field(default_factory=dict)
    """When each plant failed that is refused or lost now."""
    sent_whole: set[str] = field(default_factory=set)
    """Plants that could not use a change and were sent the whole head instead."""
    bytes_down: dict[str, int] = field(default_factory=dict)

    def ask(self, plant: str, size: int) -> None:
        """A task of ``size`` bytes is on its way; what was known of the plant in this round is void."""
        self.open_plants.add(plant)
        self.bytes_down[plant] = self.bytes_down.get(plant, 0) + size
        self.results.pop(plant, None)
        self.updates.pop(plant, None)
        self.refused.pop(plant, None)
        self.lost.pop(plant, None)
        self.failed_at.pop(plant, None)

    def answer(self, result: PlantResult) -> None:
        """An answer arrived; one that is late makes way when the plant answers in time as well."""
        if not result.late_by:
            self.open_plants.discard(result.plant)
            self.lost.pop(result.plant, None)
            self.failed_at.pop(result.plant, None)
        self.results[result.plant] = result

    def keep(self, expected: Expected, body: bytes, *, late_by: int = 0) -> None:
        """Put an answer that holds a change on disk until the round closes.

        It is not flushed: a restart has no use for it.
        """
        path = self.spool / f"{expected.plant}-{expected.round}.reply"
        try:
            self.spool.mkdir(exist_ok=True)
            path.write_bytes(body)
        except OSError as error:
            raise storage_error(error, path, "keeping an answer") from error
        self.updates[expected.plant] = Spooled(expected, path, late_by)

    def lose(self, plant: str, reason: str, now: float) -> None:
        """The plant will not answer in this round."""
        self.open_plants.discard(plant)
        self.lost[plant] = reason
        self.failed_at[plant] = now

    def back(self, plant: str) -> None:
        """The plant was away and is here again: it need not wait to be asked once more."""
        if plant in self.lost:
            self.failed_at.pop(plant, None)

    def refuse(self, plant: str, kind: str, reason: str, now: float) -> None:
        """What the plant answered is not used."""
        self.open_plants.discard(plant)
        self.results.pop(plant, None)
        self.updates.pop(plant, None)
        self.refused[plant] = Refusal(plant=plant, kind=kind, reason=reason)
        self.failed_at[plant] = now

    def in_time(self) -> int:
        """Updates of this round that wait on disk."""
        return sum(not one.late_by for one in self.updates.values())

    def takes_late(self, plant: str) -> bool:
        """Whether the round still wants an older answer of the plant: it has none in time, and none refused."""
        return self.context.train and not self._answered(plant) and plant not in self.refused

    def askable(self, plant: str, retry_before: float) -> bool:
        """Whether the plant may be given the task now: it never had it, or failed before that moment."""
        if plant in self.open_plants or self._answered(plant):
            return False
        return plant not in self.failed_at or self.failed_at[plant] <= retry_before

    def _answered(self, plant: str) -> bool:
        """Whether its answer to this round's task is here."""
        return plant in self.results and not self.results[plant].late_by

    def reasons(self) -> list[str]:
        """Why there are no more updates, in clauses."""
        clauses = [f"{plant}: {reason}" for plant, reason in sorted(self.lost.items())]
        clauses += [f"{plant}: {one.reason}" for plant, one in sorted(self.refused.items())]
        return clauses + [f"{plant} is still at work" for plant in sorted(self.open_plants)]

    def remedy(self) -> str | None:
        """What mends the round where no plant is to blame: all that were asked are refused for one reason, which
        lies in what they were given.
        """
        heard = self.refused and not (self.lost or self.updates or self.open_plants)
        if heard and all(STRAY_STATISTICS in one.reason for one in self.refused.values()):
            return OTHER_BASE
        return None

    def record(
        self,
        version: str,
        found: Aggregate,
        accepted: Iterable[Accepted],
        *,
        started: datetime,
        seconds: float,
    ) -> RoundRecord:
        """What is known of the round afterwards.

        Args:
            version: the head that the round made.
            found: what the strategy made of the updates.
            accepted: the updates that it was given.
            started: when the tasks left.
            seconds: from then to the new head.

        """
        steps = {one.spooled.plant: one.step for one in accepted}
        results = []
        for plant, result in sorted(self.results.items()):
            if plant in steps:
                update = {
                    "counted": steps[plant].examples,
                    "weight": found.shares.get(plant, 0.0),
                    "step": steps[plant].size.weights,
                    "step_of_statistics": steps[plant].size.statistics,
                }
                result = result.model_copy(update=update)
            results.append(result)
        in_time = [result for result in results if not result.late_by]
        return RoundRecord(
            round=self.context.round,
            version=version,
            parent=self.context.version,
            started=started.isoformat(timespec="seconds"),
            seconds=seconds,
            plants=results,
            refused=[one for _, one in sorted(self.refused.items())],
            lost=dict(sorted(self.lost.items())),
            evaluation=Evaluation.of(self.context.round - 1, self.context.version, in_time),
            train_loss=mean_train_loss(results),
            bytes_up=sum(result.bytes_up for result in results),
            bytes_down=sum(self.bytes_down.values()),
            notes=found.notes,
        )

    def close(self) -> None:
        """Throw the answers away: what they changed is in the model."""
        try:
            shutil.rmtree(self.spool)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise storage_error(error, self.spool, "emptying the spool") from error
