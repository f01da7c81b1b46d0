"""Settings of a simulated federation: one small model per subject, from TOML and the command line alike.

``fedsim config`` prints all of it with its documentation and defaults. A run folder keeps the settings that
it was started with, and going on with a run reads them from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Mapping, Optional

from pydantic import Field, field_validator, model_validator

from fedserver.aggregation.registry import check_strategy
from fedserver.closed_form.settings import ClosedFormSettings
from fedsim.partition import Partition
from fedspect.account import expanded
from fedspect.data.classes import named_classes
from fedspect.protocol.versions import BatchNorm
from fedspect.settings import Settings
from fedspect.shipped_bases import base_folder
from fedspect.training.settings import TrainingSettings
from fedspect.update.encoding import EncodingName

Split = Literal["auto", "random", "grouped", "manifest", "inspect"]
Backend = Literal["local", "ray"]
SMALLEST_SIZE = 64
SHIPPED = "cdnv2-a"
"""The architecture of the base model that ships with Fedspect."""


class DataSettings(Settings):
    """Which pictures, and which of them are the fixed test set."""

    folder: Optional[Path] = None
    """A folder of pictures, or a CSV or Parquet list; not set: synthetic surfaces are drawn."""
    manifest: Optional[Path] = None
    """A CSV or Parquet list of the pictures in the folder: path, class, and if known group, split and
    more."""
    classes: list[str] = Field(default_factory=list)
    """All classes in the order of the network's outputs, each with other names for it if there are any:
    ["pit=hole", "scratch"]. Pictures of other classes are left out and named, as are classes without
    pictures. Empty: the classes that occur."""
    bit_depth: Optional[int] = Field(None, ge=8, le=16)
    """Bits of the camera, 8 to 16, that files of 16 bits hold, all alike. Not set: the smallest number that holds
    all pictures."""
    split: Split = "auto"
    """How the test set is chosen. auto: the pictures' own split, where they have one (train and test), else
    as grouped. random: picture by picture, as most papers do; grouped: by whole groups
    of pictures that overlap (the list's groups, else those that are found); manifest: by the list's
    column "split"; inspect: as grouped, but with the groups that are found even where the list has its
    own."""
    test_share: float = Field(0.2, gt=0.0, lt=1.0)
    """The share of all pictures that is the test set; of no effect with the split "manifest"."""
    evaluation_share: float = Field(0.1, ge=0.0, lt=0.9)
    """The share of its training pictures that each plant keeps for its own evaluation. 0: none, and the
    model is measured on the test set only."""
    good_classes: list[str] = Field(default_factory=list)
    """Classes that mean that the piece is good, for instance ["N"]; escapes and false rejects are counted
    against them. Empty: every class is a defect."""
    threshold: float = Field(0.5, gt=0.0, lt=1.0)
    """The probability at which the line would obey the model."""
    synthetic_per_class: int = Field(60, ge=4, le=100_000)
    """How many synthetic surfaces to draw of each class where no folder is given."""

    @field_validator("classes", "good_classes", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        return [word.strip() for word in given.split(",")] if isinstance(given, str) else given

    @field_validator("classes")
    @classmethod
    def _classes_can_be_told_apart(cls, classes: list[str]) -> list[str]:
        if classes:
            named_classes(classes)
        return classes

    @model_validator(mode="after")
    def _a_list_has_its_folder(self) -> DataSettings:
        if self.manifest is not None and self.folder is None:
            raise ValueError("a list of pictures needs the folder that they lie in; name it with --data")
        return self


class PlantsSettings(Settings):
    """Who holds which training pictures."""

    count: int = Field(4, ge=1, le=10_000)
    """How many plants; the partition by-column has one for each value instead."""
    partition: Partition = "dirichlet"
    """iid: all alike; dirichlet: unalike by a draw; by-class: each has some of the classes; by-column: a
    plant for each value of a column of the list."""
    alpha: float = Field(0.5, gt=0.0, le=1e6)
    """Concentration of the Dirichlet draw: 0.1 is very uneven, 0.5 uneven, 100 nearly even."""
    column: str = Field("component", min_length=1)
    """The column of the list for the partition by-column."""


class SimulatedFederationSettings(Settings):
    """How rounds go."""

    start: Literal["closed-form", "fresh"] = "closed-form"
    """What the run begins at: the linear discriminant that one exchange of sums gives, which rounds go on from, or a
    new classifier. Where nothing of the base model is frozen, it is a new classifier anyhow."""
    closed_form: ClosedFormSettings = Field(default_factory=ClosedFormSettings)
    """How the closed form is found."""
    rounds: int = Field(15, ge=0, le=100_000)
    """Rounds: in each, every plant trains what it received and the changes become one. 0: the closed form
    alone."""
    local_epochs: int = Field(2, ge=1, le=1000)
    """Epochs that each plant trains in a round."""
    strategy: str = "fedavg"
    """How changes become one: fedavg weighs them by pictures; `fedsim run --help` names the others."""
    strategy_options: dict[str, Any] = Field(default_factory=dict)
    """The strategy's own options, for instance { proximal_mu = 0.01 } for fedprox."""
    encoding: EncodingName = "int3"
    """How changes travel: exact, or in a half, a quarter or about a ninth of the bytes."""
    batch_norm: BatchNorm = "average"
    """Whether the running statistics of the head are averaged too, or stay with each plant (FedBN)."""
    evaluate_every: int = Field(1, ge=0, le=100_000)
    """The model is measured on the test set after every so many rounds, and after the last; 0: the last
    only."""
    early_stop: Optional[int] = Field(None, ge=1, le=100_000)
    """Stop when this many rounds brought no better model, judged by the plants' own evaluation pictures; not
    set: all rounds. The other arms of a comparison stop after as many epochs and keep their best one."""
    early_stop_metric: Literal["accuracy", "balanced_accuracy", "precision", "recall", "f1"] = "accuracy"
    """What "better" means to a federation; the other arms of a comparison go by accuracy, then loss."""
    backend: Backend = "local"
    """local: all in this process; ray: Flower's own simulation on Ray, for many plants and for clusters. Same model
    either way."""

    @model_validator(mode="after")
    def _something_is_learned(self) -> SimulatedFederationSettings:
        if self.rounds == 0 and self.start == "fresh":
            raise ValueError(
                'without rounds (rounds = 0) a run has to begin at a closed form: start = "closed-form"'
            )
        return self

    @model_validator(mode="after")
    def _strategy_and_its_options_are_known(self) -> SimulatedFederationSettings:
        check_strategy(self.strategy, self.strategy_options)
        return self


class SimulatedModelSettings(Settings):
    """What every plant starts from."""

    base: Optional[Path] = None
    """The folder of a base model, or the name of one that ships with Fedspect (a-grey); not set: a-grey."""
    scratch: bool = False
    """Start from fresh weights instead of a base model; so does another architecture than that of the shipped
    base, where no base is named."""
    architecture: Optional[str] = None
    """cdnv2-a, cdnv2-b, cdnv2-c, plain-cnn or a torchvision classifier such as mobilenet-v3-small; not
    set: the base model's own."""
    freeze_levels: Optional[int] = Field(None, ge=0, le=1000)
    """Frozen levels, which never train and never travel; not set: what the base model recommends (8 of 12 for
    CondenseNetV2), and none from scratch."""
    size: Optional[int] = Field(None, ge=SMALLEST_SIZE, le=4096)
    """Side in pixels of the square that pictures are scaled to; not set: the base model's own, 224 from
    scratch."""
    channels: Literal[1, 3] = 1
    """From scratch: 1 for grey, 3 for colour; a base model brings its own."""

    @model_validator(mode="before")
    @classmethod
    def _no_base_ships_for_others(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("base"):
            return given
        return given if given.get("architecture") in (None, SHIPPED) else {**given, "scratch": True}

    @model_validator(mode="after")
    def _base_or_scratch(self) -> SimulatedModelSettings:
        if self.base is not None and self.scratch:
            raise ValueError("a base model and a start from scratch exclude each other")
        return self


class SimulationSettings(Settings):
    """All settings of ``fedsim run`` and ``fedsim compare``."""

    ELSEWHERE: ClassVar[Mapping[str, str]] = {
        "training.epochs": "use --rounds and --local-epochs",
        "training.early_stopping": "use --set federation.early_stop=3, in rounds",
        "training.proximal_mu": "use --strategy fedprox, with --set federation.strategy_options.proximal_mu=0.01",
    }

    seed: int = Field(1, ge=0, lt=2**31)
    """What every draw of the run is derived from; the same seed gives the same model, bit for bit with one
    thread."""
    cache_folder: Optional[Path] = None
    """Where the frozen levels' answers are kept; not set: in the run folder. Runs that share base and pictures
    save that work when they share this folder."""
    data: DataSettings = Field(default_factory=DataSettings)
    """Which pictures, and which of them are the fixed test set."""
    plants: PlantsSettings = Field(default_factory=PlantsSettings)
    """Who holds which training pictures."""
    federation: SimulatedFederationSettings = Field(default_factory=SimulatedFederationSettings)
    """How rounds go."""
    model: SimulatedModelSettings = Field(default_factory=SimulatedModelSettings)
    """What every plant starts from."""
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    """How each plant trains."""

    @model_validator(mode="after")
    def _stopping_early_is_judged_by_something(self) -> SimulationSettings:
        if self.federation.early_stop is not None and self.data.evaluation_share == 0:
            raise ValueError(
                "federation.early_stop is judged by the plants' evaluation pictures, and with "
                "data.evaluation_share = 0 there are none"
            )
        return self

    def with_absolute_paths(self) -> SimulationSettings:
        """The same settings for a file that may lie anywhere."""
        data, model = self.data, self.model
        paths = {name: _absolute(getattr(data, name)) for name in ("folder", "manifest")}
        return self.model_copy(
            update={
                "data": data.model_copy(update=paths),
                "model": model.model_copy(update={"base": _absolute(model.base and base_folder(model.base))}),
                "cache_folder": _absolute(self.cache_folder),
            }
        )


def _absolute(path: Optional[Path]) -> Optional[Path]:
    return None if path is None else expanded(path).resolve()
