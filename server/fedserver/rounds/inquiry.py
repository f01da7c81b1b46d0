"""A question to many plants outside of rounds: who was asked, who answered, who failed and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Take = Callable[[str, bytes], None]
"""Given a plant and its answer; raises ``FedspectError`` for an answer that cannot be used."""


@dataclass
class Inquiry:
    """One question, the same for all."""

    body: bytes
    take: Take
    open: set[str] = field(default_factory=set)
    """Asked, and not yet heard of."""
    answered: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    """Plants that were asked and gave no answer that can be used, with the reason."""
    failed_at: dict[str, float] = field(default_factory=dict)

    def ask(self, plant: str) -> None:
        """The question is on its way to a plant."""
        self.open.add(plant)
        self.lost.pop(plant, None)

    def answer(self, plant: str) -> None:
        """A plant's answer was taken."""
        self.open.discard(plant)
        self.lost.pop(plant, None)
        self.answered.add(plant)

    def lose(self, plant: str, reason: str, now: float) -> None:
        """A plant gives no answer."""
        self.open.discard(plant)
        self.lost[plant] = reason
        self.failed_at[plant] = now

    def askable(self, plant: str, retry_before: float) -> bool:
        """Whether a plant may be asked now: it was not, or failed before that moment."""
        if plant in self.open or plant in self.answered:
            return False
        return self.failed_at.get(plant, retry_before) <= retry_before
