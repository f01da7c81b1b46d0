"""The tables of docs/results.md: what an entry keeps, and what is said of entries that are of another command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """``benchmarks/results.py`` as a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import results as module

    yield module
    for name in ("results", "result_rows"):
        sys.modules.pop(name, None)


def evaluation(right: float) -> dict[str, Any]:
    """An evaluation of two classes as ``fedsim`` writes it, with the figures that an entry keeps."""
    figures = {"precision": right, "recall": right, "f1": right, "support": 50}
    line = {
        "threshold": 0.5,
        "has_good_class": True,
        "defects": 50,
        "escapes": 2,
        "good": 50,
        "false_rejects": 1,
    }
    return {
        "accuracy": right,
        "classes": [{"name": name, **figures} for name in ("N", "P")],
        "line": {**line, "wrong_alarms": 0},
        "confusion": [],
    }


def entry(results: ModuleType, name: str, seed: int, arms: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A row measured with one seed."""
    shown = results.shown_command(results.ROWS[name], seed)
    return {"row": name, "seed": seed, "command": shown, "arms": arms, "seconds": 60, **changes}


def test_an_entry_keeps_the_figures_of_each_class_and_of_the_line(results: ModuleType) -> None:
    kept = results.reached(evaluation(0.9))
    assert kept["precision"] == kept["recall"] == kept["f1"] == {"N": 0.9, "P": 0.9}
    assert kept["line"]["escapes"] == 2


def test_rows_whose_entries_have_them_are_shown_class_by_class(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = [{"together": {**results.reached(evaluation(right)), "seconds": 60}} for right in (0.9, 0.8)]
    entries = [entry(results, "ballscrew-grouped-frozen", seed, each) for seed, each in enumerate(arms, 1)]
    monkeypatch.setattr(results, "read_kept", lambda: entries)
    text = results.table()
    assert "| P | 85.00 % | 85.00 % | 85.00 % |" in text
    assert "4 of 100 defects escape at 0.5, 2 of 100 good pieces rejected" in text
    assert "earlier command" not in text


def test_what_an_earlier_command_reached_stays_in_the_table_and_is_marked(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"together": {"accuracy": 0.9, "recall": {"N": 0.9, "P": 0.9}, "seconds": 60}}
    current = results.shown_command(results.ROWS["ballscrew-grouped-frozen"], 1)
    earlier = current.replace(" --good N", "")
    assert earlier != current
    entries = [entry(results, "ballscrew-grouped-frozen", 1, old, command=earlier)]
    monkeypatch.setattr(results, "read_kept", lambda: entries)
    text = results.table()
    assert "first eight levels frozen \\* | all pictures in one place | 90.00" in text
    assert "earlier command" in text and earlier in text
    assert "| precision |" not in text


def test_a_paired_difference_has_its_interval_over_seeds(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = []
    for seed, (federated, pooled) in enumerate(((0.99, 0.99), (0.97, 0.98), (0.97, 0.99)), start=1):
        arms = {"federation": {"accuracy": federated}, "together": {"accuracy": pooled}}
        entries.append(entry(results, "neu-grouped", seed, arms))
    (line,) = results.paired(entries)
    # Student's t of two degrees of freedom: 4.303 times 1 / sqrt(3) around -1.
    assert "mean -1.00 points; 95 % interval over 3 seeds -3.48 to +1.48" in line
    (line,) = results.paired(entries[:1])
    assert "one seed gives no interval" in line


def test_the_list_of_commands_tells_the_rows_apart(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["ballscrew-without-kgt1", "ballscrew-without-kgt2"]
    entries = [entry(results, name, 1, {}) for name in names]
    assert entries[0]["command"] == entries[1]["command"]
    monkeypatch.setattr(results, "read_kept", lambda: entries)
    text = "\n".join(results.commands())
    for name, component in zip(names, ("KGT1", "KGT2"), strict=True):
        assert f"# {name}: " in text and f"test for component {component}, train" in text
