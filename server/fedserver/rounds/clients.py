"""Clients of the round loop (the plants): tasks are sent by name, replies are read at one look at a time.

Between the loop, ``MessageDispatcher`` (messages), ``ClientManager`` (who is who) and ``RoundState`` (the open
round) this decides what an arriving reply means: a description, an answer in time, one that is late, one that
cannot be read, a failure, or a plant that lacks the version that it was sent a change for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

from fedserver.aggregation.checking import largest_reply
from fedserver.rounds.client_manager import Admit, ClientManager, ConnectedClient
from fedserver.rounds.dispatcher import Delivery, MessageDispatcher, Sent
from fedserver.rounds.events import OnEvent, PlantJoined, PlantLost, PlantRefused, PlantReplied
from fedserver.rounds.history import PlantResult, Refusal
from fedserver.rounds.inquiry import Inquiry
from fedserver.rounds.round_state import RoundState
from fedserver.rounds.settings import RoundSettings
from fedserver.rounds.transport import Transport
from fedserver.storage.run_state import ClientRecord, RunFacts
from fedspect.errors import FedspectError, UpdateError
from fedspect.protocol.messages import DESCRIBE, NOTICE, TRAIN
from fedspect.update.checks import Expected, refusal
from fedspect.update.round_messages import RoundReply

LOOK_AT_NODES = 1.0  # seconds between two questions for who is online
DESCRIBE_LIFETIME = 120.0
NOTICE_LIFETIME = 3600.0
NO_DEADLINE = 30 * 86_400.0


class Clients:
    """All plants of a run.

    Args:
        transport: the way to the nodes.
        facts: what a plant must fit.
        settings: how late is too late, and when to ask again.
        records: what is remembered of each plant.
        on_event: is told what happens.
        clock: seconds that never go back.
        admit: a further look at who joins.
        released: the plants that an operator has let in again since the last call.

    """

    def __init__(
        self,
        transport: Transport,
        facts: RunFacts,
        settings: RoundSettings,
        records: Mapping[str, ClientRecord],
        on_event: OnEvent,
        clock: Callable[[], float],
        admit: Admit,
        released: Callable[[], list[str]] = list,
    ) -> None:
        self.manager = ClientManager(facts, records, admit=admit)
        self._dispatcher = MessageDispatcher(transport, clock)
        self._facts = facts
        self._settings = settings
        self._emit = on_event
        self._clock = clock
        self._released = released
        self._next_look = clock()
        self._inquiry: Inquiry | None = None
        self._between_rounds: list[Delivery] = []  # came when no round was open; the next one sees to them

    def free(self) -> list[str]:
        """The plants that can be given a task, by name."""
        return self.manager.free(self._dispatcher.busy())

    def ask(self, round_state: RoundState, plants: list[str]) -> None:
        """Give each of these plants the task of the open round; those that hold the same version get the same bytes."""
        by_version: dict[str | None, list[ConnectedClient]] = {}
        for plant in plants:
            member = self.manager.members[plant]
            by_version.setdefault(member.holds, []).append(member)
        lifetime = (self._settings.deadline or NO_DEADLINE) * (1 + self._settings.late_rounds)
        for version, members in by_version.items():
            kind, body = round_state.tasks.for_holder_of(version)
            self._dispatcher.send(
                [member.node for member in members],
                TRAIN,
                body,
                lifetime=lifetime,
                group=str(round_state.context.round),
                expected=[self._expected(member, round_state) for member in members],
                payload_kind=kind,
            )
            for member in members:
                round_state.ask(member.description.plant, len(body))

    def _expected(self, member: ConnectedClient, round_state: RoundState) -> Expected:
        """What the plant's answer to the open round must match."""
        description, context = member.description, round_state.context
        return Expected(
            plant=description.plant,
            run_id=context.run_id,
            round=context.round,
            base_hash=self._facts.base_hash,
            version=context.version,
            schema=round_state.tasks.schema,
            classes=self._facts.classes,
            enrolled=description.counts or None,
            at_first=self.manager.record(description.plant).pictures,
        )

    def inquire(self, inquiry: Inquiry, plants: list[str]) -> None:
        """Put a question outside of rounds to each of these plants."""
        self._inquiry = inquiry
        for plant in plants:
            inquiry.ask(plant)
        nodes = [self.manager.members[plant].node for plant in plants]
        lifetime = self._settings.deadline or NO_DEADLINE
        self._dispatcher.send(
            nodes, TRAIN, inquiry.body, lifetime=lifetime, group="0", inquiry=inquiry, plants=plants
        )

    def tell(self, plant: str, text: str) -> None:
        """Send a plant a sentence for its log; whether it arrives is not waited for."""
        member = self.manager.members.get(plant)
        if member is not None:
            self._dispatcher.send([member.node], NOTICE, text.encode("utf-8"), lifetime=NOTICE_LIFETIME)

    def look(self, round_state: RoundState | None) -> bool:
        """See who is online and take what has arrived; whether anything had."""
        if self._clock() >= self._next_look:
            self._next_look = self._clock() + LOOK_AT_NODES
            self._see(round_state)
        heard = False
        between: list[Delivery] = []
        if round_state is not None:
            between, self._between_rounds = self._between_rounds, []
        for delivery in itertools.chain(between, self._dispatcher.receive()):
            heard = True
            if delivery.sent.kind == DESCRIBE:
                self._described(delivery, round_state)
            elif delivery.sent.inquiry is not None:
                self._inquired(delivery, delivery.sent.inquiry)
            elif delivery.sent.expected is not None:
                self._answered(delivery, delivery.sent.expected, round_state)
        return heard

    def _see(self, round_state: RoundState | None) -> None:
        for plant in self._released():
            self.manager.release(plant)
        nodes = self._dispatcher.nodes()
        for node in sorted(self._dispatcher.busy() - nodes):
            self._dispatcher.excuse(node)
            gone = self.manager.plant_of(node)
            if gone is None:
                continue
            if round_state is not None and gone in round_state.open_plants:
                self._lose(round_state, gone, "it went offline")
            elif self._inquiry is not None and gone in self._inquiry.open:
                self._inquiry.lose(gone, "it went offline", self._clock() - self._settings.retry)
        new = self.manager.see(nodes, self._clock())
        if new:
            lifetime = max(DESCRIBE_LIFETIME, self._settings.gather)
            self._dispatcher.send(new, DESCRIBE, b"", lifetime=lifetime)

    def _inquired(self, delivery: Delivery, inquiry: Inquiry) -> None:
        """An answer to a question outside of rounds, or why there is none."""
        plant, reason = delivery.sent.plant, delivery.failure
        if reason is None:
            try:
                inquiry.take(plant, delivery.body)
            except FedspectError as error:
                reason = str(error)
            else:
                inquiry.answer(plant)
                return
        if plant not in inquiry.answered:
            inquiry.lose(plant, reason, self._clock())
            self._emit(PlantLost(plant, 0, reason))

    def _described(self, delivery: Delivery, round_state: RoundState | None) -> None:
        node = delivery.sent.node
        again = self._clock() + self._settings.retry
        if delivery.failure is not None:
            self.manager.keep_out(node, f"node {node} did not describe itself: {delivery.failure}", again)
            return
        try:
            member = self.manager.learn(node, delivery.body)
        except FedspectError as error:
            if node not in self.manager.kept_out:
                self._emit(PlantRefused(f"node {node}", 0, "joining", str(error)))
            self.manager.keep_out(node, str(error), again)
        else:
            description = member.description
            if round_state is not None:
                round_state.back(description.plant)
            self._emit(PlantJoined(description.plant, sum(description.counts.values())))

    def _answered(self, delivery: Delivery, expected: Expected, round_state: RoundState | None) -> None:
        """What an answer to a task means for the open round, which may be another one than the task's."""
        plant = expected.plant
        current = (
            round_state if round_state is not None and round_state.context.round == expected.round else None
        )
        if delivery.failure is not None:
            if current is not None:
                self._lose(current, plant, delivery.failure)
            return
        try:
            reply = RoundReply.from_bytes(delivery.body, largest_reply(expected.schema))
            if reply.plant != plant:
                raise refusal(plant, "it comes under another plant's name", seen=reply.plant, accepted=plant)
        except UpdateError as error:
            self._unreadable(round_state, delivery, expected, str(error))
            return
        member = self.manager.members.get(plant)
        if member is not None:
            member.holds = reply.holds
        if round_state is None:
            self._between_rounds.append(delivery)
        elif reply.error is not None:
            self._failed(round_state, delivery.sent, expected, f"{reply.error.kind}: {reply.error.message}")
        elif current is not None:
            self._take(current, delivery, expected, reply, late_by=0)
        else:
            self._late(round_state, delivery, expected, reply)

    def _unreadable(
        self, round_state: RoundState | None, delivery: Delivery, expected: Expected, reason: str
    ) -> None:
        """An answer that is none: refused, and in the round that is open if it is late, or a plant whose every
        answer is late and spoilt would never hear of it.
        """
        plant = expected.plant
        if round_state is None:
            self._between_rounds.append(delivery)
            return
        late = round_state.context.round != expected.round
        if late and (plant in round_state.open_plants or not round_state.takes_late(plant)):
            self._count_refusal(round_state, plant, reason)  # it has answered this round, or still may
        elif round_state.context.train:
            self.refuse(round_state, plant, reason)
        else:
            self._lose(round_state, plant, reason)

    def _failed(self, round_state: RoundState, sent: Sent, expected: Expected, reason: str) -> None:
        """A plant's work failed; if it was sent less than the whole head, that may be why. Nothing waits for
        what fails after its round, yet the reason is what somebody has to mend.
        """
        plant = expected.plant
        member = self.manager.members.get(plant)
        if round_state.context.round != expected.round:
            reason = f"its work of round {expected.round} failed: {reason}"
            self._emit(PlantLost(plant, round_state.context.round, reason))
        elif sent.payload_kind != "full" and plant not in round_state.sent_whole and member is not None:
            round_state.sent_whole.add(plant)
            member.holds = None
            self.ask(round_state, [plant])
        else:
            self._lose(round_state, plant, reason)

    def _take(
        self,
        round_state: RoundState,
        delivery: Delivery,
        expected: Expected,
        reply: RoundReply,
        *,
        late_by: int,
    ) -> None:
        result = PlantResult.of(
            reply,
            late_by=late_by,
            bytes_up=len(delivery.body),
            bytes_down=round_state.bytes_down.get(expected.plant, 0),
        )
        round_state.answer(result)
        if reply.trained:
            round_state.keep(expected, delivery.body, late_by=late_by)
        self._emit(PlantReplied(round_state.context, result))

    def _late(
        self, round_state: RoundState, delivery: Delivery, expected: Expected, reply: RoundReply
    ) -> None:
        """An answer to an earlier round's task: used in this one with a discount, or refused."""
        settings, plant = self._settings, expected.plant
        late_by = round_state.context.round - expected.round
        usable = settings.late == "use" and settings.late_discount > 0 and late_by <= settings.late_rounds
        if usable and reply.trained and round_state.takes_late(plant):
            self._take(round_state, delivery, expected, reply, late_by=late_by)
            return
        reason = f"its update of round {expected.round} came {late_by} rounds late"
        if round_state.takes_late(plant) and plant not in round_state.open_plants:
            round_state.refused[plant] = Refusal(plant=plant, kind="late", reason=reason)
        self._emit(PlantRefused(plant, round_state.context.round, "late", reason))

    def _lose(self, round_state: RoundState, plant: str, reason: str) -> None:
        round_state.lose(plant, reason, self._clock())
        self._emit(PlantLost(plant, round_state.context.round, reason))

    def refuse(self, round_state: RoundState, plant: str, reason: str) -> None:
        """Keep a plant's update from the model, count that, and tell the plant why."""
        round_state.refuse(plant, "update", reason, self._clock())
        self._count_refusal(round_state, plant, reason)

    def _count_refusal(self, round_state: RoundState, plant: str, reason: str) -> None:
        record = self.manager.refused(plant, reason, self._settings.refusals_before_quarantine)
        self._emit(
            PlantRefused(
                plant, round_state.context.round, "update", reason, record.refusals, record.quarantined
            )
        )
        self.tell(plant, reason)
