"""Client manager: which plant is behind which node, what it holds, and what is remembered of it.

A node is asked to describe itself once, when it is first seen or comes back. The description must fit the
run: the same classes, the same base model, a name that nobody else here has. A node that does not fit is
left alone for a while and then asked again, for its engineer may have mended it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedserver.storage.run_state import ClientRecord, RunFacts
from fedspect.errors import FedspectError, UpdateRefusedError
from fedspect.update.round_messages import PlantDescription

Admit = Callable[[int, PlantDescription], None]
"""A further look at who joins, for example at the registry; raises ``FedspectError`` to keep a node out."""


def admit_all(node: int, description: PlantDescription) -> None:
    """Keep nobody out: in a simulation there is nobody else."""


@dataclass
class ConnectedClient:
    """A plant that is here."""

    node: int
    description: PlantDescription
    holds: str | None
    """The version on its disk; ``None`` if unknown."""


class ClientManager:
    """The plants of a run, by name."""

    def __init__(
        self, facts: RunFacts, records: Mapping[str, ClientRecord], *, admit: Admit = admit_all
    ) -> None:
        self.members: dict[str, ConnectedClient] = {}
        self.records = dict(records)
        self.kept_out: dict[int, str] = {}
        """Nodes that may not take part, with the reason."""
        self._facts = facts
        self._admit = admit
        self._known: set[int] = set()
        self._again: dict[int, float] = {}

    def see(self, nodes: set[int], now: float) -> list[int]:
        """Take note of who is online; returned are the nodes to ask for a description, in order."""
        gone = self._known - nodes
        self.members = {name: one for name, one in self.members.items() if one.node not in gone}
        for node in gone:
            self.kept_out.pop(node, None)
            self._again.pop(node, None)
        due = {node for node, when in self._again.items() if when <= now}
        for node in due:
            del self._again[node]
        new = (nodes - self._known) | due
        self._known = set(nodes)
        return sorted(new)

    def learn(self, node: int, body: bytes) -> ConnectedClient:
        """A node's description; it is a member from now on.

        Raises:
            FedspectError: it does not fit the run, and why.

        """
        description = PlantDescription.from_bytes(body)
        plant = description.plant
        holder = self.members.get(plant)
        if holder is not None and holder.node != node:
            raise _unfit(f"another node that is online bears the name {plant}", description)
        if description.classes != self._facts.classes:
            raise _unfit(
                f"{plant} knows other classes", description.classes, accepted=", ".join(self._facts.classes)
            )
        if description.base_hash != self._facts.base_hash:
            seen = description.base_hash or "none"
            raise _unfit(f"{plant} has another base model", seen[:12], accepted=self._facts.base_hash[:12])
        self._admit(node, description)
        self.kept_out.pop(node, None)
        self.members[plant] = ConnectedClient(node, description, description.holds)
        record = self.record(plant)
        if record.pictures is None:
            record = record.model_copy(update={"pictures": sum(description.counts.values()) or None})
        self.records[plant] = record
        return self.members[plant]

    def keep_out(self, node: int, reason: str, until: float) -> None:
        """Leave a node alone until a point in time, then ask it again."""
        self.kept_out[node] = reason
        self._again[node] = until

    def plant_of(self, node: int) -> str | None:
        """The plant behind a node."""
        return next((name for name, one in self.members.items() if one.node == node), None)

    def free(self, busy: set[int]) -> list[str]:
        """The plants that can be given a task, by name: here, not quarantined, and owing nothing."""
        return sorted(
            name
            for name, one in self.members.items()
            if one.node not in busy and not self.record(name).quarantined
        )

    def record(self, plant: str) -> ClientRecord:
        """How a plant stands."""
        return self.records.get(plant, ClientRecord())

    def refused(self, plant: str, reason: str, limit: int) -> ClientRecord:
        """Count a refused update; at ``limit`` in a row the plant is quarantined."""
        before = self.record(plant)
        refusals = before.refusals + 1
        self.records[plant] = before.model_copy(
            update={"refusals": refusals, "last_refusal": reason, "quarantined": refusals >= limit}
        )
        return self.records[plant]

    def release(self, plant: str) -> None:
        """An operator looked: the plant takes part again, with a clean sheet and the pictures that it has now."""
        member = self.members.get(plant)
        pictures = sum(member.description.counts.values()) if member is not None else 0
        update = {"refusals": 0, "quarantined": False, "pictures": pictures or None}
        self.records[plant] = self.record(plant).model_copy(update=update)

    def accepted(self, plant: str, round_number: int) -> None:
        """Count an update that was used."""
        self.records[plant] = self.record(plant).model_copy(
            update={"refusals": 0, "last_round": round_number}
        )

    def heard_of(self) -> int:
        """How many nodes have said who they are, those that may not take part included."""
        return len(self.members) + len(self.kept_out)

    def missing(self) -> list[str]:
        """Why not more plants take part, in clauses."""
        quarantined = [name for name, one in sorted(self.records.items()) if one.quarantined]
        clauses = [f"{name} is quarantined ({self.record(name).last_refusal})" for name in quarantined]
        return clauses + [reason for _, reason in sorted(self.kept_out.items())]


def _unfit(what: str, seen: object, *, accepted: str | None = None) -> FedspectError:
    return UpdateRefusedError(
        what, seen=seen, accepted=accepted, remedy="let the plant join this federation again"
    )
