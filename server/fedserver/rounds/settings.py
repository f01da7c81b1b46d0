"""How rounds go: what plants are asked to do, how long they are waited for, and when a run ends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedspect.protocol.versions import BatchNorm
from fedspect.settings import Settings
from fedspect.update.encoding import EncodingName


class RoundSettings(Settings):
    """One run's rounds. Times are seconds."""

    rounds: int = Field(10, ge=0, le=100_000)
    """Rounds of the whole run, those before a restart included; 0: the closed form alone."""
    local_epochs: int = Field(1, ge=1, le=1000)
    """Epochs that each plant trains in a round."""
    learning_rate: float | None = Field(None, gt=0, le=100)
    """The plants' learning rate at the start of the run; not set: each plant's own setting."""
    batch_norm: BatchNorm = "average"
    """Whether running statistics are averaged too, or stay at each plant (FedBN)."""
    encoding: EncodingName = "int3"
    """How plants send their changes."""
    density: float = Field(0.25, gt=0, le=1)
    """The share of values that ``sparse-int8`` sends, in both directions."""
    encoding_down: EncodingName = "int3"
    """How the model's own change goes down to plants that hold the version before it."""

    quorum: int = Field(2, ge=1, le=10_000)
    """Updates that a round needs before it may close; with fewer, the run waits and says so."""
    deadline: float | None = Field(600.0, gt=0, le=7 * 86_400)
    """After this long a round closes with whoever answered, if that is a quorum; not set: it waits."""
    late: Literal["use", "refuse"] = "use"
    """What becomes of an update that arrives after its round closed."""
    late_discount: float = Field(0.5, ge=0, le=1)
    """The share of its weight that a late update keeps, once for every round that it is late."""
    late_rounds: int = Field(2, ge=1, le=100)
    """An update that is later than this many rounds is refused."""
    of_others: float = Field(10.0, ge=1, le=1e6)
    """A plant counts in a mean for at most this many times the median of the others' pictures: nobody can
    check how many it has. The round's notes name the plant.
    """
    refusals_before_quarantine: int = Field(3, ge=1, le=1000)
    """Refused updates in a row after which a plant is left out until an operator looks."""

    expected_plants: int | None = Field(None, ge=1, le=100_000)
    """A run waits for this many plants before its first round, for ``gather`` at most; not set: quorum."""
    gather: float = Field(60.0, ge=0, le=7 * 86_400)
    """How long the run waits for the plants that it expects."""
    retry: float = Field(30.0, ge=0, le=86_400)
    """With too few plants, those that failed or were refused are asked again after this long."""
    give_up: float | None = Field(None, ge=0, le=30 * 86_400)
    """With too few plants, the run ends with an error after this long; not set: it waits until they come."""
    poll: float = Field(0.1, gt=0, le=60)
    """Pause between two looks for answers."""

    early_stop: int | None = Field(None, ge=1, le=100_000)
    """Stop when this many rounds brought no better model by ``early_stop_metric``; not set: never."""
    early_stop_metric: str = "accuracy"
    """A plants' metric, larger is better, averaged over all their evaluation pictures."""
    keep_heads: int = Field(3, ge=2, le=1000)
    """How many rounds' models stay on disk, beside the best one."""
