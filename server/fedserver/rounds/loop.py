"""The round loop: who is asked, how long they are waited for, what becomes of their answers.

A round: wait for a quorum of plants; give each a ``RoundTask``; put answers on disk as they arrive; close
when all are in, or at the deadline with a quorum; check, aggregate, store, tell. With too few plants the
run waits, says so, and asks those that come or come back; it never hangs in silence. A plant that owes an
answer gets no second task: its late update is used in the round in which it arrives, with a discount, or
refused. After the last round the plants evaluate what it made.

Nothing of an open round is on disk but the spooled answers, which a restart throws away and asks for again:
plants repeat a round from the state that they began it with.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone

from fedserver.aggregation.aggregate import aggregate
from fedserver.aggregation.aggregator import Aggregator
from fedserver.aggregation.checking import Accepted, check_updates
from fedserver.aggregation.registry import build_aggregator
from fedserver.closed_form.exchange import StatisticsExchange
from fedserver.closed_form.settings import ClosedFormSettings
from fedserver.rounds.client_manager import Admit, admit_all
from fedserver.rounds.clients import Clients
from fedserver.rounds.events import (
    OnEvent,
    PlantLost,
    RoundClosed,
    RoundContext,
    RoundStarted,
    RunFinished,
    ignore,
)
from fedserver.rounds.history import Evaluation, RunHistory
from fedserver.rounds.outcome import STOPPED, last_words
from fedserver.rounds.round_state import RoundState, Tasks
from fedserver.rounds.run_status import RunStatus
from fedserver.rounds.settings import RoundSettings
from fedserver.rounds.transport import Transport
from fedserver.storage.run_store import RunState, RunStore
from fedspect.errors import FedspectError, QuorumError
from fedspect.update.change import apply_change
from fedspect.update.checks import CheckSettings

EARLIER_ROUNDS = 3  # whose accepted steps say what is usual

logger = logging.getLogger("fedserver.rounds")


class RoundLoop:
    """Runs what is left of a run.

    Args:
        transport: the way to the nodes.
        store: where the run is; it goes on from there.
        on_event: is told what happens, in this thread.
        aggregator: the run's strategy when not given.
        settings: the store's own when not given.
        should_stop: asked at every pause; ``True`` ends the run as if interrupted.
        admit: a further look at who joins.
        checks: how far an update may stray; by default what ``settings`` says of it.
        clock: seconds that never go back.

    """

    def __init__(
        self,
        transport: Transport,
        store: RunStore,
        on_event: OnEvent = ignore,
        *,
        aggregator: Aggregator | None = None,
        settings: RoundSettings | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        admit: Admit = admit_all,
        checks: CheckSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._store = store
        self._aggregator = aggregator or build_aggregator(store.facts.strategy, store.facts.strategy_options)
        self._settings = settings or store.facts.rounds
        self._on_event = on_event
        self._admit = admit
        self._checks = checks or CheckSettings(of_others=self._settings.of_others)
        self._clock = clock
        self._status = RunStatus(store, self._settings, self._on_event, should_stop)

    def run(self) -> RunFinished:
        """Go on to the last round.

        Raises:
            QuorumError: too few plants for longer than ``give_up``.
            InterruptedRunError: ``should_stop`` said so; every closed round is on disk.
            AlreadyRunningError: another process runs this run.
            FedspectError: a round cannot be stored, or the strategy's answer cannot be used.

        """
        with self._store.occupy():
            try:
                return self._run()
            except BaseException as error:
                with contextlib.suppress(FedspectError):
                    self._store.say(STOPPED, **last_words(error))
                raise

    def _run(self) -> RunFinished:
        store, settings = self._store, self._settings
        state = store.latest()
        store.empty_spool()
        self._aggregator.load_state_dict(state.moments)
        self._history = RunHistory(store.history(), store.evaluations(), settings.early_stop_metric)
        self._clients = Clients(
            self._transport,
            store.facts,
            settings,
            state.plants,
            self._on_event,
            self._clock,
            self._admit,
            store.quarantine_releases.take,
        )
        self._expecting = self._clock() + settings.gather
        if store.facts.closed_form is not None and state.round == 0 and store.closed_forms.latest() is None:
            state = self._closed_form(state, store.facts.closed_form)
        while state.round < settings.rounds and not self._history.should_stop_early(settings.early_stop):
            state = self._round(state)
        early = state.round < settings.rounds
        evaluation = self._closing_evaluation(state)
        finished = RunFinished(state.round, state.served.version, early, evaluation)
        self._status.say("finished", str(finished), round=state.round)
        self._on_event(finished)
        return finished

    def _closed_form(self, state: RunState, settings: ClosedFormSettings) -> RunState:
        """Where the run stands after the plants' class statistics made its beginning."""
        context = replace(self._context(state, train=True), round=0)
        self._await_quorum(context, give_up=self._settings.give_up)
        StatisticsExchange(
            self._store,
            self._clients,
            self._status,
            self._settings,
            settings,
            context,
            self._on_event,
            self._clock,
        ).run()
        return replace(state, served=self._store.latest().served)

    # -- a round -------------------------------------------------------------------------------------------

    def _round(self, state: RunState) -> RunState:
        context = self._context(state, train=True)
        self._await_quorum(context, give_up=self._settings.give_up)
        head = state.served.head
        began, started = self._clock(), datetime.now(timezone.utc)
        round_state = self._open(context, state)
        accepted = self._collect(round_state, state)
        found = aggregate(self._aggregator, context.round, accepted)
        served = state.served.advance(
            apply_change(head, found.change),
            encoding=self._settings.encoding_down,
            density=self._settings.density,
        )
        for one in accepted:
            self._clients.manager.accepted(one.spooled.plant, context.round)
        seconds = self._clock() - began
        record = round_state.record(served.version, found, accepted, started=started, seconds=seconds)
        self._history.add(record)
        closed = RunState(context.round, served, self._aggregator.state_dict(), self._clients.manager.records)
        self._store.close_round(closed, record, best=self._history.best())
        round_state.close()
        self._on_event(RoundClosed(record, self._history.seconds_for(self._settings.rounds - context.round)))
        return closed

    def _context(self, state: RunState, *, train: bool) -> RoundContext:
        return RoundContext(
            self._store.facts.run_id,
            state.round + 1,
            self._settings.rounds,
            state.served.version,
            train,
        )

    def _open(self, context: RoundContext, state: RunState) -> RoundState:
        """Begin a round: everyone who is free gets the task."""
        settings = self._settings
        tasks = Tasks(
            state.served,
            run_id=context.run_id,
            round=context.round,
            total_rounds=max(1, context.total_rounds),
            base_hash=self._store.facts.base_hash,
            encoding=settings.encoding_down,
            reply_encoding=settings.encoding,
            reply_density=settings.density,
            local_epochs=settings.local_epochs,
            learning_rate=settings.learning_rate,
            batch_norm=settings.batch_norm,
            train=context.train,
            seed=self._store.facts.seed,
            **(self._aggregator.task_options if context.train else {}),
        )
        round_state = RoundState(context, tasks, self._store.spool)
        plants = self._clients.free()
        self._clients.ask(round_state, plants)
        started = RoundStarted(context, tuple(plants))
        self._status.say("running", str(started), round=context.round, plants=plants)
        self._on_event(started)
        return round_state

    def _collect(self, round_state: RoundState, state: RunState) -> list[Accepted]:
        """Wait for answers until the round may close; the updates that were accepted."""
        quorum, deadline = self._settings.quorum, self._settings.deadline
        closing_time = None if deadline is None else self._clock() + deadline
        waiting_since: float | None = None
        while True:
            heard = self._clients.look(round_state)
            in_time = closing_time is None or self._clock() < closing_time
            if round_state.open_plants and in_time:
                self._status.rest(heard)
                continue
            if round_state.in_time() >= quorum:
                accepted = self._check(round_state, state)
                if round_state.in_time() >= quorum:
                    for plant in sorted(round_state.open_plants):
                        round_state.lose(plant, "it had not answered at the deadline", self._clock())
                        self._on_event(PlantLost(plant, round_state.context.round, round_state.lost[plant]))
                    return accepted
            waiting_since = waiting_since if waiting_since is not None else self._clock()
            retry_before = self._clock() - self._settings.retry
            others = [one for one in self._clients.free() if round_state.askable(one, retry_before)]
            self._clients.ask(round_state, others)
            if not others:
                give_up = self._settings.give_up
                enough = give_up is not None and self._clock() - waiting_since >= give_up
                self._status.wait(
                    round_state.context,
                    round_state.in_time(),
                    "update",
                    round_state.reasons(),
                    enough=enough,
                    remedy=round_state.remedy(),
                )
            self._status.rest(heard)

    def _check(self, round_state: RoundState, state: RunState) -> list[Accepted]:
        """Refuse what must not touch the model; the rest may be averaged."""
        accepted, refused = check_updates(
            round_state.updates.values(),
            state.served.head,
            discount=self._settings.late_discount,
            earlier=self._history.recent_steps(EARLIER_ROUNDS),
            settings=self._checks,
        )
        for plant, error in sorted(refused.items()):
            self._clients.refuse(round_state, plant, str(error))
        return accepted

    def _closing_evaluation(self, state: RunState) -> Evaluation | None:
        """What the plants say of the last version; asked once."""
        known = self._store.closing(state.round)
        if known is not None:
            return known
        context = self._context(state, train=False)
        limits = [one for one in (self._settings.deadline, self._settings.give_up) if one is not None]
        try:
            self._await_quorum(context, give_up=min(limits, default=None))
        except QuorumError as error:
            logger.warning("%s; the last version stays without it", error)
            return None
        round_state = self._open(context, state)
        closing_time = self._clock() + (self._settings.deadline or float("inf"))
        while round_state.open_plants and self._clock() < closing_time:
            self._status.rest(self._clients.look(round_state))
        evaluation = Evaluation.of(state.round, state.served.version, round_state.results.values())
        if evaluation is not None:
            self._store.close_run(state.round, evaluation)
        return evaluation

    # -- waiting -------------------------------------------------------------------------------------------

    def _await_quorum(self, context: RoundContext, *, give_up: float | None) -> None:
        """Return when enough plants are free; at first, those that are expected."""
        since = self._clock()
        while True:
            heard = self._clients.look(None)
            now = self._clock()
            if self._clients.manager.heard_of() >= (self._settings.expected_plants or 0):
                self._expecting = now
            free = self._clients.free()
            if len(free) >= self._settings.quorum and now >= self._expecting:
                self._expecting = now
                return
            if not heard:
                enough = give_up is not None and now >= max(since + give_up, self._expecting)
                missing = self._clients.manager.missing()
                self._status.wait(context, len(free), "plant", missing, enough=enough)
            self._status.rest(heard)
