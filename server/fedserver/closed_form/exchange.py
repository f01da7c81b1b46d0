"""The exchange of class statistics: how a run comes to its closed form before its first round.

Plants are asked for their statistics; each answer is checked and on disk before the next is read, so a server that
is killed asks only those that it has not heard. With the sums of all, plants score a few candidates on their
evaluation pictures, and the one that was chosen once more, to learn how far known pictures lie. What does not come
in time is not waited for: late statistics are kept for the next closed form of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from fedserver.closed_form.choice import (
    Candidate,
    Chosen,
    candidates,
    choose,
    groups_of,
    sums_of,
    with_limit,
)
from fedserver.closed_form.settings import ClosedFormSettings
from fedserver.closed_form.store import ClosedFormRecord, Gains
from fedserver.rounds.clients import Clients
from fedserver.rounds.events import ClosedFormFound, OnEvent, RoundContext
from fedserver.rounds.inquiry import Inquiry, Take
from fedserver.rounds.run_status import RunStatus
from fedserver.rounds.settings import RoundSettings
from fedserver.storage.run_store import RunStore
from fedspect.discriminant.analysis import MEANS, Discriminant, solve
from fedspect.discriminant.checks import check_statistics
from fedspect.discriminant.messages import (
    MOST_STATISTICS,
    ORIENTATION_GROUPS,
    ScoreReply,
    ScoreTask,
    StatisticsReply,
    StatisticsTask,
)
from fedspect.discriminant.scores import Scores, check_scores
from fedspect.discriminant.statistics import ClassStatistics, total
from fedspect.errors import UpdateRefusedError
from fedspect.update.round_messages import DEFAULT_MAX_BYTES, ReplyError

MOST_COMPARED = 20
"""With more plants nobody's contribution is worked out: it takes two closed forms for each."""


@dataclass
class StatisticsExchange:
    """Finds the closed form of a run and keeps it in the store."""

    store: RunStore
    plants: Clients
    status: RunStatus
    rounds: RoundSettings
    settings: ClosedFormSettings
    context: RoundContext
    on_event: OnEvent
    clock: Callable[[], float]

    def run(self) -> ClosedFormRecord:
        """Ask, solve, choose, keep.

        Raises:
            QuorumError: too few plants for longer than ``give_up``.
            InterruptedRunError: asked to stop; what arrived is on disk.

        """
        began = time.perf_counter()
        self._say("collecting class statistics")
        self.collect()
        found = self._candidates()
        self._say("plants score candidates of the closed form")
        scores = self._added(self.score([each.discriminant for each in found]))
        chosen = choose(found, scores)
        known = self._added(self.score([chosen.discriminant], whole=True))
        discriminant = with_limit(chosen.discriminant, known, self.settings.asked)
        gains = self.gains(chosen) if scores is not None else None
        record = self._record(found, chosen, discriminant, gains, time.perf_counter() - began)
        self.store.closed_forms.add(discriminant.tensors(), record)
        self.on_event(ClosedFormFound(len(record.plants), record.accuracy, record.seconds, record.bytes_up))
        return record

    # -- asking --------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Ask every plant for its statistics that has not given them."""
        facts, known = self.store.facts, set(self.store.closed_forms.plants())
        groups = groups_of(self.settings.orientations)
        task = StatisticsTask(
            run_id=facts.run_id,
            base_hash=facts.base_hash,
            groups=groups,
            seed=facts.seed,
        )

        def take(plant: str, body: bytes) -> None:
            reply = StatisticsReply.from_bytes(body, MOST_STATISTICS)
            _check_origin(reply.plant, reply.run_id, plant, facts.run_id, reply.error)
            if list(reply.groups) != groups:
                raise UpdateRefusedError(
                    f"the statistics of {plant} are refused: they are of other orientations",
                    seen=", ".join(reply.groups),
                    accepted=", ".join(groups),
                )
            enrolled = self.plants.manager.members[plant].description.counts or None
            for group, part in reply.statistics(*self.shape).items():
                check_statistics(
                    part,
                    plant=plant,
                    classes=facts.classes,
                    enrolled=enrolled,
                    views=len(ORIENTATION_GROUPS[group]),
                )
            self.store.closed_forms.keep(plant, body)

        self._ask(task.to_bytes(), take, known=known, needed=self.rounds.quorum)

    def score(self, found: list[Discriminant], *, whole: bool = False) -> dict[str, Scores]:
        """The plants' scores of candidates; of those that hold pictures out.

        With ``whole`` the last candidate goes with its whitening, and distances come back.
        """
        facts = self.store.facts
        linear = [each.linear() for each in found]
        task = ScoreTask.of(facts.run_id, facts.base_hash, facts.seed, linear, found[-1] if whole else None)
        parts: dict[str, Scores] = {}

        def take(plant: str, body: bytes) -> None:
            reply = ScoreReply.from_bytes(body, DEFAULT_MAX_BYTES)
            _check_origin(reply.plant, reply.run_id, plant, facts.run_id, reply.error)
            if not reply.evaluated:
                return
            scores = reply.scores()
            check_scores(scores, plant=plant, candidates=len(found), classes=len(facts.classes), most=2**24)
            parts[plant] = scores

        self._ask(task.to_bytes(), take, known=set(), needed=0)
        return dict(sorted(parts.items()))

    @staticmethod
    def _added(parts: dict[str, Scores]) -> Scores | None:
        """All scores together; None where nobody held pictures out."""
        added = None
        for part in parts.values():
            added = part if added is None else added + part
        return added

    def gains(self, chosen: Chosen) -> dict[str, Gains] | None:
        """What each plant brings each other: closed forms of each alone, of all without it, and of all together,
        as the plants' evaluation pictures see them. Nothing is trained.
        """
        kept = self.store.closed_forms
        names = kept.plants()
        if not 2 <= len(names) <= MOST_COMPARED:
            return None
        groups = chosen.candidate.orientations
        own = {
            name: total((kept.statistics(name, *self.shape)[group] for group in groups), *self.shape)
            for name in names
        }
        everything = total(own.values(), *self.shape)
        shrinkage = chosen.candidate.shrinkage
        found = [solve(part, shrinkage) for part in own.values()]
        found += [solve(everything - part, shrinkage) for part in own.values()]
        found.append(chosen.discriminant)
        return {
            plant: Gains(
                evaluated=part.pictures,
                together=part.right(len(found) - 1),
                alone={name: part.right(place) for place, name in enumerate(names)},
                without={name: part.right(len(names) + place) for place, name in enumerate(names)},
            )
            for plant, part in self.score(found).items()
        }

    def _ask(self, body: bytes, take: Take, *, known: set[str], needed: int) -> None:
        """Put one question to all that are here, until they have answered or the deadline has passed."""
        inquiry = Inquiry(body, take, answered=set(known))
        closing = None if self.rounds.deadline is None else self.clock() + self.rounds.deadline
        waiting_since: float | None = None
        while True:
            retry_before = self.clock() - self.rounds.retry
            fresh = [one for one in self.plants.free() if inquiry.askable(one, retry_before)]
            self.plants.inquire(inquiry, fresh)
            heard = self.plants.look(None)
            in_time = closing is None or self.clock() < closing
            if inquiry.open and in_time:
                self.status.rest(heard)
                continue
            if len(inquiry.answered) >= needed:
                return
            waiting_since = waiting_since if waiting_since is not None else self.clock()
            give_up = self.rounds.give_up
            enough = give_up is not None and self.clock() - waiting_since >= give_up
            reasons = [f"{plant}: {reason}" for plant, reason in sorted(inquiry.lost.items())]
            if not inquiry.open and not heard:
                self.status.wait(self.context, len(inquiry.answered), "plant", reasons, enough=enough)
            self.status.rest(heard)

    # -- solving -------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Classes and features of the run."""
        classes, features = self.store.head(0)[MEANS].shape
        return int(classes), int(features)

    def _candidates(self) -> list[Candidate]:
        kept = self.store.closed_forms
        parts = (kept.statistics(plant, *self.shape) for plant in kept.plants())
        orientations = self.settings.orientations
        return candidates(sums_of(parts, groups_of(orientations), self.shape), orientations)

    def _record(
        self,
        found: list[Candidate],
        chosen: Chosen,
        discriminant: Discriminant,
        gains: dict[str, Gains] | None,
        seconds: float,
    ) -> ClosedFormRecord:
        kept, classes = self.store.closed_forms, self.store.facts.classes
        counts = {
            plant: dict(zip(classes, _counts(kept.statistics(plant, *self.shape)), strict=True))
            for plant in kept.plants()
        }
        absent = [name for name in classes if not any(each[name] for each in counts.values())]
        scores, place = chosen.scores, chosen.place
        limited = scores.pictures > 0
        return ClosedFormRecord(
            version=self.store.version_with(discriminant.tensors()),
            plants=counts,
            orientations=list(chosen.candidate.orientations),
            shrinkage=chosen.candidate.shrinkage,
            temperature=discriminant.temperature,
            limit=discriminant.limit if limited else None,
            evaluated=scores.pictures,
            right=scores.right(place),
            confusion=scores.confusion[place].tolist() if limited else None,
            loss=chosen.loss,
            candidates=[
                {
                    "orientations": "+".join(each.orientations),
                    "shrinkage": each.shrinkage,
                    "right": float(scores.right(number)),
                }
                for number, each in enumerate(found)
            ],
            gains=gains,
            seconds=round(seconds, 3),
            bytes_up=kept.bytes_up(),
            notes=[f"no plant has a picture of {name}: it is never answered" for name in absent],
        )

    def _say(self, what: str) -> None:
        self.status.say("running", what, round=0)


def _counts(parts: dict[str, ClassStatistics]) -> list[int]:
    """Pictures by class: each gives one vector to the first group."""
    return [int(count) for count in next(iter(parts.values())).counts]


def _check_origin(said: str, said_run: str, plant: str, run: str, error: ReplyError | None) -> None:
    """Raise ``UpdateRefusedError`` for an answer under another name, of another run, or that is an error."""
    if (said, said_run) != (plant, run):
        raise UpdateRefusedError(
            f"an answer of {plant} is refused: it is under another name or of another run",
            seen=f"{said}, {said_run}",
            accepted=f"{plant}, {run}",
        )
    if error is not None:
        raise UpdateRefusedError(f"{plant} could not answer: {error.kind}: {error.message}")
