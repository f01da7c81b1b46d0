"""A run that begins at a closed form: the same model whoever holds which picture, and rounds never make it worse."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fedserver.closed_form.choice import sums_of
from fedserver.closed_form.forgetting import forget
from fedserver.storage.run_store import RunStore
from fedsim.commands.overrides import Overrides
from fedsim.federation import federate
from fedsim.run import RunResult, start_run
from fedspect.discriminant.analysis import MEANS, solve
from fedspect.errors import FederationError


def run(path: Path, pictures: Path, plants: int, *, rounds: int = 0, share: float = 0.0) -> RunResult:
    """A federation of a small network with fresh weights, two of its levels frozen."""
    given = {
        "data": pictures,
        "scratch": True,
        "model": "plain-cnn",
        "size": 64,
        "freeze_levels": 2,
        "plants": plants,
        "partition": "iid",
        "rounds": rounds,
        "local_epochs": 1,
        "threads": 1,
        "device": "cpu",
    }
    return start_run(path, Overrides(given, assignments=[f"data.evaluation_share={share}"]).settings())


def store_of(result: RunResult) -> RunStore:
    return RunStore(result.folder.rounds)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> RunResult:
    return run(tmp_path_factory.mktemp("three") / "run", pictures, 3)


def test_one_plant_and_three_give_the_same_model(three: RunResult, tmp_path: Path, pictures: Path) -> None:
    one = run(tmp_path / "one", pictures, 1)
    assert store_of(one).version(0) == store_of(three).version(0)
    assert three.rounds == 0
    assert three.evaluation.accuracy > 0.9


def test_a_server_that_was_killed_asks_only_those_that_it_has_not_heard(
    three: RunResult, tmp_path: Path
) -> None:
    shutil.copytree(three.folder.path, tmp_path / "again")
    folder = type(three.folder)(tmp_path / "again")
    store = RunStore(folder.rounds)
    version = store.version(0)
    shutil.rmtree(folder.rounds / "closed-form" / "0001")
    (folder.rounds / "0000" / "closing.json").unlink(missing_ok=True)
    store.closed_forms.forget("plant-2")
    kept = (folder.rounds / "closed-form" / "statistics" / "plant-1.reply").stat().st_mtime_ns
    federate(folder, three.prepared, folder.settings(), lambda event: None)
    assert RunStore(folder.rounds).version(0) == version
    assert (folder.rounds / "closed-form" / "statistics" / "plant-1.reply").stat().st_mtime_ns == kept


def test_a_forgotten_plant_leaves_the_model_that_would_be_without_it(
    three: RunResult, tmp_path: Path
) -> None:
    shutil.copytree(three.folder.rounds, tmp_path / "rounds")
    store = RunStore(tmp_path / "rounds")
    classes, features = store.head(0)[MEANS].shape
    before = store.closed_forms.latest()
    assert before is not None
    parts = [store.closed_forms.statistics(name, classes, features) for name in ("plant-1", "plant-3")]
    alone = solve(sums_of(parts, ["as-it-lies"], (classes, features))["as-it-lies"], before.shrinkage)
    alone = replace(alone, temperature=before.temperature, limit=before.limit or alone.limit)  # these stay
    record = forget(store, "plant-2")
    assert record.version == store.version_with(alone.tensors()) != before.version
    assert RunStore(tmp_path / "rounds").version(0) == record.version
    assert "plant-2" not in store.closed_forms.plants()
    with pytest.raises(FederationError, match="nothing of this plant"):
        forget(store, "plant-2")


def test_rounds_never_make_the_result_worse_and_leave_the_closed_form_alone(
    tmp_path: Path, pictures: Path
) -> None:
    result = run(tmp_path / "run", pictures, 2, rounds=2, share=0.3)
    store = store_of(result)
    known = store.evaluations()
    assert known[store.result_round()].mean["accuracy"] >= known[0].mean["accuracy"]
    first, last = store.head(0), store.head(2)
    constant = [name for name in first if name.startswith("discriminant.")]
    assert len(constant) == 6
    assert all((first[name] == last[name]).all() for name in constant)
    assert any((first[name] != last[name]).any() for name in first if name not in constant)
    record = store.closed_forms.latest()
    assert record is not None and record.gains is not None
    assert set(record.gains) == {"plant-1", "plant-2"}
    assert record.evaluated == sum(each.evaluated for each in record.gains.values())
