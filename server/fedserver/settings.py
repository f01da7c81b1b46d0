"""``fedserver.toml``: what an operator decides about a federation, one small model per subject.

``fedserver init`` writes the file with a comment over every value. Secrets are never in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Literal, Optional

from pydantic import Field, field_validator, model_validator

from fedserver.aggregation.registry import check_strategy
from fedserver.closed_form.settings import ClosedFormSettings
from fedserver.rounds.settings import RoundSettings
from fedspect.account import expanded
from fedspect.data.classes import ClassList
from fedspect.errors import ClassError
from fedspect.protocol.limits import LONGEST_NAME, MOST_CLASSES
from fedspect.protocol.names import checked_hosts, checked_name
from fedspect.settings import Settings
from fedspect.shipped_bases import SHIPPED

FLEET_PORT = 9092
ENROLMENT_PORT = 9094


class FederationSettings(Settings):
    """Name, labels and members of the federation."""

    name: str = Field("federation", max_length=LONGEST_NAME)
    """The federation's name: lower-case letters, digits, dots, dashes and underscores."""
    classes: List[str] = Field(default_factory=list, max_length=MOST_CLASSES)
    """The classes of surface in the model's order; they differ in more than case and the signs between words. A
    plant may lack some, and never adds one.
    """
    aliases: Dict[str, str] = Field(default_factory=dict)
    """Other spellings that plants use, each with its class: { "scratch" = "scratches" }."""

    @field_validator("name")
    @classmethod
    def _name_can_be_one(cls, name: str) -> str:
        return checked_name(name, "federation")

    @model_validator(mode="after")
    def _plants_understand_the_classes(self) -> FederationSettings:
        if self.classes:
            try:
                if len(self.classes) < 2:
                    raise ClassError(
                        "there are fewer than two classes", seen=self.classes[0], remedy="name at least two"
                    )
                ClassList(tuple(self.classes), self.aliases)
            except ClassError as error:
                raise ValueError(str(error)) from error
        return self


class NetworkSettings(Settings):
    """Addresses: where plants reach headquarters, and where it listens."""

    hosts: List[str] = Field(default_factory=lambda: ["localhost"], min_length=1, max_length=64)
    """Names and addresses under which plants reach this machine. They go into the server's certificate and
    into join tokens; after a change the next start issues a new certificate of the same authority.
    """
    bind: str = "127.0.0.1"
    """The local address to listen on: 0.0.0.0 for every IPv4 interface, :: for IPv6 too, 127.0.0.1 for
    tests.
    """
    fleet_port: int = Field(FLEET_PORT, ge=0, le=65535)
    """TCP port for rounds (Flower's Fleet API)."""
    enrolment_port: int = Field(ENROLMENT_PORT, ge=0, le=65535)
    """TCP port for joining."""

    @field_validator("hosts")
    @classmethod
    def _hosts_are_hosts(cls, hosts: List[str]) -> List[str]:
        return checked_hosts(hosts)


class ModelSettings(Settings):
    """Base model that every plant starts from."""

    base: str = "default"
    """"default" for the small one that ships with Fedspect (a-grey), or the folder of a base model."""
    freeze_levels: Optional[int] = Field(None, ge=0, le=1000)
    """Frozen levels, which never train and never travel; not set: what the base model recommends (8 of 12 for
    CondenseNetV2).
    """


class RunSettings(Settings):
    """Aggregation of the plants' updates, and the seed."""

    start: Literal["closed-form", "fresh"] = "closed-form"
    """What a run begins at: the linear discriminant that one exchange of sums gives, which rounds go on from, or a
    new classifier. Where nothing of the base model is frozen, it is a new classifier anyhow.
    """

    strategy: str = "fedavg"
    """fedavg weighs the plants' changes by their pictures; an unknown name is answered with all names."""
    strategy_options: Dict[str, Any] = Field(default_factory=dict)
    """The strategy's own options: { proximal_mu = 0.01 } for fedprox."""
    closed_form: ClosedFormSettings = Field(default_factory=ClosedFormSettings)
    """How the closed form is found."""
    seed: int = Field(0, ge=0, lt=2**31)
    """What a run's randomness is derived from."""
    publish: Literal["at-the-end", "never"] = "at-the-end"
    """Whether the last round's model becomes a version that plants are given, by itself, or only by
    `fedserver models publish`.
    """

    @model_validator(mode="after")
    def _strategy_and_its_options_are_known(self) -> RunSettings:
        check_strategy(self.strategy, self.strategy_options)
        return self


class FineTuningSettings(Settings):
    """What the federation prescribes for training at a plant: the part of ``TrainingSettings`` that must be
    the same everywhere. Device, threads, memory and cache are each plant's own business. Headquarters has
    no torch, so the fields are said again here; a test holds them together.
    """

    batch_size: int = Field(32, ge=1, le=4096)
    """Pictures a step at most."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd with Nesterov momentum."""
    learning_rate: float = Field(1e-3, gt=0.0, le=10.0)
    """Step size at the top of the schedule, which spans all rounds; about 0.001 for adamw, 0.05 for sgd."""
    weight_decay: float = Field(0.01, ge=0.0, le=1.0)
    """Pull of the weights towards zero; about 0.01 for adamw, 0.0001 for sgd."""
    label_smoothing: float = Field(0.05, ge=0.0, lt=1.0)
    """Share of the target that is spread over all classes."""
    class_weights: Literal["none", "balanced", "root"] = "none"
    """balanced: a class weighs as the inverse of its count at the plant; root: as its square root."""


class ServerSettings(Settings):
    """All of ``fedserver.toml``."""

    federation: FederationSettings = Field(default_factory=FederationSettings)
    """Who learns what. Classes can be changed as long as no run has begun."""
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    """Where plants find headquarters."""
    model: ModelSettings = Field(default_factory=ModelSettings)
    """What every plant starts from."""
    run: RunSettings = Field(default_factory=RunSettings)
    """How the plants' changes become one model."""
    rounds: RoundSettings = Field(default_factory=lambda: RoundSettings(rounds=20))
    """How long plants are waited for and when a run ends. Times are seconds."""
    training: FineTuningSettings = Field(default_factory=FineTuningSettings)
    """What the federation prescribes for training at a plant; device, threads and limits are the plant's
    own.
    """

    def ready_classes(self) -> List[str]:
        """The class names, checked before a run.

        Raises:
            ClassError: there are none yet.

        """
        if not self.federation.classes:
            raise ClassError(
                "the federation has no classes yet",
                accepted="two or more",
                remedy='set classes = ["...", "..."] under [federation] in fedserver.toml',
            )
        return list(self.federation.classes)

    def base_folder(self, workspace: Path) -> Optional[Path]:
        """The folder of the base model, ``None`` for the one that ships with Fedspect."""
        if self.model.base == "default":
            return None
        folder = workspace / expanded(Path(self.model.base))
        return folder if folder.exists() else SHIPPED.get(self.model.base, folder)
