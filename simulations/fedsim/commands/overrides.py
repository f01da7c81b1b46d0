"""Overrides of a run's settings from the command line: the options that ``fedsim run`` and ``compare`` share.

An option that is not given stays None and leaves the setting to the TOML file or its default. Settings
without an option of their own are given as ``--set training.learning_rate=0.002``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from fedsim.commands import options
from fedsim.config import SHIPPED, SimulationSettings
from fedspect import console
from fedspect.settings import assigned, load_settings

P = ParamSpec("P")

OPTIONS: Mapping[str, tuple[str, Any]] = {
    "data": ("data.folder", options.Data),
    "manifest": ("data.manifest", options.Manifest),
    "classes": ("data.classes", options.Classes),
    "good": ("data.good_classes", options.Good),
    "threshold": ("data.threshold", options.Threshold),
    "bit_depth": ("data.bit_depth", options.BitDepth),
    "split": ("data.split", options.SplitOption),
    "plants": ("plants.count", options.Plants),
    "partition": ("plants.partition", options.PartitionOption),
    "alpha": ("plants.alpha", options.Alpha),
    "column": ("plants.column", options.Column),
    "rounds": ("federation.rounds", options.Rounds),
    "local_epochs": ("federation.local_epochs", options.LocalEpochs),
    "strategy": ("federation.strategy", options.Strategy),
    "encoding": ("federation.encoding", options.Encoding),
    "batch_norm": ("federation.batch_norm", options.BatchNorm),
    "evaluate_every": ("federation.evaluate_every", options.EvaluateEvery),
    "backend": ("federation.backend", options.BackendOption),
    "model": ("model.architecture", options.Model),
    "base": ("model.base", options.Base),
    "scratch": ("model.scratch", options.Scratch),
    "freeze_levels": ("model.freeze_levels", options.FreezeLevels),
    "size": ("model.size", options.Size),
    "seed": ("seed", options.Seed),
    "threads": ("training.threads", options.Threads),
    "device": ("training.device", options.Device),
}
"""By name, the setting that each option stands for, and the option."""


@dataclass(frozen=True)
class Overrides:
    """What was given: options by name, a TOML file, and ``--set``."""

    options: Mapping[str, Any]
    config: Path | None = None
    assignments: Sequence[str] = ()

    def settings(self) -> SimulationSettings:
        """The settings that it means.

        Raises:
            SettingsError: a value or a key is not accepted.

        """
        settings = load_settings(self.config, SimulationSettings, self.overrides()).with_absolute_paths()
        model = settings.model
        if model.scratch and model.architecture not in (None, SHIPPED) and not self.options.get("scratch"):
            console.note(
                f"no base model of {model.architecture} is named: it starts from fresh weights (--scratch)"
            )
        return settings

    def overrides(self) -> dict[str, Any]:
        """What options and ``--set`` say, by dotted key."""
        named = {key: self.options.get(name) for name, (key, _) in OPTIONS.items()}
        found = {key: value for key, value in named.items() if value is not None}
        return {**found, **assigned(self.assignments)}

    def words(self) -> list[str]:
        """The options that were given, as they were typed."""
        found = [f"--{name.replace('_', '-')}" for name in OPTIONS if self.options.get(name) is not None]
        return found + ["--config"] * (self.config is not None) + ["--set"] * bool(self.assignments)


def with_settings(command: Callable[Concatenate[Overrides, P], None]) -> Callable[..., None]:
    """A command with all of OPTIONS, ``--config`` and ``--set`` before its own; they reach it as its first argument."""
    shared = {name: option for name, (_, option) in OPTIONS.items()}
    shared |= {"config": options.Config, "set_": options.Set}
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
            for name, option in shared.items()
        ),
        *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own),
    ]

    @functools.wraps(command)
    def wrapper(*, config: Path | None, set_: Sequence[str] | None, **values: Any) -> None:
        given = Overrides({name: values.pop(name) for name in OPTIONS}, config, set_ or ())
        command(given, **values)  # type: ignore[call-arg]  # typer fills in what the signature says

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapper
