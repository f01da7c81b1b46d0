"""Strategies of other packages: found by an entry point, and refused where a restart would lose what they know."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fedserver.aggregation.registry import GROUP, build_aggregator, check_strategy, strategy_names
from fedspect.errors import SettingsError

SOURCE = '''
import numpy as np
from flwr.serverapp.strategy import FedAvgM
from pydantic import Field

from fedserver.aggregation.means import FedAvg
from fedserver.flower.strategies import HeldUpdates
from fedserver.aggregation.aggregator import Aggregate
from fedspect.settings import Settings


class DampedOptions(Settings):
    keep: float = Field(0.5, ge=0, lt=1)
    """Share of the last change that is added."""


class Damped(FedAvg):
    Options = DampedOptions
    last = None

    def result(self, round_number):
        found = super().result(round_number)
        if self.last is not None:
            keep = np.float32(self.options.keep)
            found = Aggregate({n: v + keep * self.last[n] for n, v in found.change.items()}, found.shares)
        self.last = found.change
        return found

    def state_dict(self):
        return dict(self.last or {})

    def load_state_dict(self, state):
        self.last = dict(state) or None


class Forgetful(Damped):
    def state_dict(self):
        return {}


class Unsavable(Damped):
    def state_dict(self):
        return {"last": self.last}


class Momentum(HeldUpdates):
    def make(self):
        return FedAvgM(server_momentum=0.9)


class Incomplete(FedAvg.__base__):
    def add(self, plant, weight, change):
        pass


def no_class():
    pass
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other_strategies.py").write_text(SOURCE)
    folder = tmp_path / "other_strategies-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: other-strategies\nVersion: 1.0\n")
    names = ["Damped", "Forgetful", "Unsavable", "Momentum", "Incomplete", "no_class"]
    lines = [f"{name.lower()} = other_strategies:{name}" for name in names]
    (folder / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "other_strategies", raising=False)


def test_a_strategy_of_another_package_is_used_by_its_name_with_its_options() -> None:
    assert "damped" in strategy_names()
    check_strategy("damped", {"keep": 0.25})
    aggregator = build_aggregator("damped", {"keep": 0.25})
    for number in (1, 2):
        aggregator.add("plant-1", 1.0, {"weight": np.ones(2, dtype=np.float32)})
        found = aggregator.result(number)
    assert found.change["weight"].tolist() == [1.25, 1.25]
    with pytest.raises(SettingsError, match="keep"):
        build_aggregator("damped", {"keep": 2})
    with pytest.raises(ValueError, match="keep"):
        check_strategy("damped", {"keep": 2})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("forgetful", "Forgetful would not survive a restart"),
        ("unsavable", "unsavable cannot be used"),
        ("momentum", "Momentum would not survive a restart"),
        ("incomplete", "cannot be used.*abstract"),
        ("no_class", "is no aggregator"),
    ],
)
def test_a_strategy_that_a_restart_would_change_is_refused_at_the_start(name: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        build_aggregator(name)


def test_an_unknown_strategy_is_answered_with_all_names() -> None:
    with pytest.raises(ValueError, match="krum, damped"):
        check_strategy("fedmagic", {})
