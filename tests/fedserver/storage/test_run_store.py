"""The run on disk: what is read back is what was written, and a kill between two writes loses nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import linear_plants
from fedserver.rounds.history import RoundRecord
from fedserver.rounds.loop import RoundLoop
from fedserver.rounds.settings import RoundSettings
from fedserver.storage.run_state import ClientRecord, RunFacts, RunState
from fedserver.storage.run_store import RunStore
from fedspect.errors import DamagedFileError, DiskFullError, WorkspaceError
from fedspect.files import read_json_lines
from linear_plants import LinearPlant
from scripted_transport import ScriptedTransport


def facts(**rounds: object) -> RunFacts:
    settings = {
        "rounds": 3,
        "quorum": 2,
        "expected_plants": 2,
        "gather": 5.0,
        "give_up": 5.0,
        "deadline": None,
    }
    return RunFacts(
        run_id="a-run",
        base_hash=linear_plants.BASE_HASH,
        classes=list(linear_plants.CLASSES),
        seed=3,
        strategy="fedadam",
        strategy_options={"eta": 0.05},
        rounds=RoundSettings(**{**settings, "poll": 0.0001, **rounds}),
    )


def record(number: int, state: RunState, parent: str) -> RoundRecord:
    return RoundRecord(
        round=number,
        version=state.served.version,
        parent=parent,
        started="2024-01-01T00:00:00+00:00",
        seconds=1.0,
        plants=[],
        refused=[],
        lost={},
        evaluation=None,
        train_loss=None,
        bytes_up=1,
        bytes_down=2,
        notes=[],
    )


def advance(store: RunStore, state: RunState, *, best: int | None = None, encoding: str = "int8") -> RunState:
    """Close a round that moves every value a little."""
    number = state.round + 1
    target = {name: values + np.float32(0.01 * number) for name, values in state.served.head.items()}
    served = state.served.advance(target, encoding=encoding)
    moments = {"m/head.bias": np.full(3, number, dtype=np.float32)}
    plants = {"plant-1": ClientRecord(refusals=number % 2, last_round=number)}
    closed = RunState(number, served, moments, plants)
    store.close_round(closed, record(number, closed, state.served.version), best=best)
    return closed


def begun(folder: Path, **rounds: object) -> RunStore:
    return RunStore.create(folder, facts(**rounds), linear_plants.start_head())


def same(left: RunState, right: RunState) -> bool:
    def equal(one: dict[str, np.ndarray] | None, other: dict[str, np.ndarray] | None) -> bool:
        one, other = one or {}, other or {}
        return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)

    return (
        left.round == right.round
        and left.served.version == right.served.version
        and equal(left.served.head, right.served.head)
        and equal(left.served.residual, right.served.residual)
        and left.served.links == right.served.links
        and equal(left.moments, right.moments)
        and left.plants == right.plants
    )


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    store = begun(tmp_path)
    state = store.latest()
    for _ in range(3):
        state = advance(store, state)
        assert same(RunStore(tmp_path).latest(), state)
    assert RunStore(tmp_path).facts == facts()


def test_heads_are_kept_for_the_last_rounds_the_first_and_the_best(tmp_path: Path) -> None:
    store = begun(tmp_path, keep_heads=2)
    state = store.latest()
    for number in range(1, 8):
        state = advance(store, state, best=2 if number > 2 else None)
    assert store.kept_heads() == [0, 2, 6, 7]
    assert store.rounds() == list(range(8))
    with pytest.raises(WorkspaceError, match="round 3 is not kept"):
        store.head(3)


def test_a_store_does_not_grow_but_for_its_records(tmp_path: Path) -> None:
    store = begun(tmp_path)
    state = store.latest()
    for _ in range(40):
        state = advance(store, state)
    assert len(list(tmp_path.glob("*/head.safetensors"))) == 4
    assert len(list(tmp_path.glob("*/server.safetensors"))) == 1
    assert len(list(tmp_path.glob("*/down.update"))) <= 17
    assert len(state.served.links) == len(RunStore(tmp_path).latest().served.links) == 16


def test_a_plant_let_in_again_is_told_once_and_forgotten_when_a_round_is_closed(tmp_path: Path) -> None:
    store, operator = begun(tmp_path), RunStore(tmp_path)
    operator.quarantine_releases.add("plant-1")
    assert store.quarantine_releases.take() == ["plant-1"]
    assert store.quarantine_releases.take() == []
    assert RunStore(tmp_path).quarantine_releases.take() == ["plant-1"]  # a server that was started again
    operator.quarantine_releases.add("plant-1")  # once more before the round is closed
    operator.quarantine_releases.add("plant-2")
    state = advance(store, store.latest())
    assert store.quarantine_releases.take() == ["plant-1", "plant-2"]
    advance(store, state)
    assert RunStore(tmp_path).quarantine_releases.take() == []


def test_a_run_is_not_begun_over_another(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(WorkspaceError, match="holds a run already"):
        begun(tmp_path)


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="there is no run here"):
        RunStore(tmp_path)


def test_a_run_of_another_format_says_so(tmp_path: Path) -> None:
    begun(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 9'))
    with pytest.raises(WorkspaceError, match="another format"):
        RunStore(tmp_path)


def test_a_head_that_was_changed_on_disk_is_not_served(tmp_path: Path) -> None:
    store = begun(tmp_path)
    path = tmp_path / "0000" / "head.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="its hash is another"):
        store.latest()


def test_a_damaged_last_round_says_what_removing_its_folder_costs(tmp_path: Path) -> None:
    store = begun(tmp_path)
    before = advance(store, store.latest())
    advance(store, before)
    path = tmp_path / "0002" / "head.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError) as caught:
        store.latest()
    assert "without the strategy's moments" in (caught.value.remedy or "")
    assert before.moments and before.served.residual
    shutil.rmtree(path.parent)
    found = store.latest()
    assert (found.round, found.served.version) == (1, before.served.version)
    assert not found.moments and not found.served.residual


def test_a_torn_or_missing_history_file_is_mended_on_opening(tmp_path: Path) -> None:
    store = begun(tmp_path)
    state = advance(store, advance(store, store.latest()))
    whole = (tmp_path / "history.jsonl").read_text()
    for damage in (whole[:-20], "", whole + '{"round": 3, "ver'):
        (tmp_path / "history.jsonl").write_text(damage)
        RunStore(tmp_path).latest()
        assert [row["round"] for row in read_json_lines(tmp_path / "history.jsonl")] == [1, 2]
    assert state.round == 2


def test_a_full_disk_ends_in_words_and_keeps_the_round_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = begun(tmp_path)
    state = advance(store, store.latest())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError):
            advance(store, state)
    assert same(RunStore(tmp_path).latest(), state)


# -- kills ---------------------------------------------------------------------------------------------------

WRITES = ("fsync", "rename", "replace", "unlink", "mkdir", "rmdir")


def run_rounds(folder: Path) -> None:
    """Begin the run if there is none, and go on to its end."""
    if not RunStore.exists(folder / "run"):
        RunStore.create(
            folder / "run", facts(encoding="int8", encoding_down="int8"), linear_plants.start_head()
        )
    workers = [LinearPlant(f"plant-{n}", folder / f"plant-{n}") for n in (1, 2)]
    store = RunStore(folder / "run")
    RoundLoop(ScriptedTransport(workers), store).run()


def in_a_process(work: Callable[[], None], die_at: int | None = None) -> int:
    """Do work in a process that dies, as if killed, before its ``die_at``-th change of the disk.

    Returns 0 if it came to the end, 9 if it died.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = iter(range(die_at if die_at is not None else 10**9))
    for name in WRITES:
        real = getattr(os, name)

        def counted(*args: object, real: Callable[..., object] = real, **more: object) -> object:
            if next(left, None) is None:
                os._exit(9)
            return real(*args, **more)

        setattr(os, name, counted)
    try:
        work()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


@pytest.mark.slow
def test_a_kill_before_any_write_of_a_run_changes_nothing_of_its_result(tmp_path: Path) -> None:
    assert in_a_process(lambda: run_rounds(tmp_path / "whole")) == 0
    whole = RunStore(tmp_path / "whole" / "run")
    deaths = 0
    for die_at in range(0, 10_000, 11):
        folder = tmp_path / f"cut-{die_at}"
        code = in_a_process(lambda folder=folder: run_rounds(folder), die_at)
        if code == 0:
            break
        assert code == 9
        deaths += 1
        assert in_a_process(lambda folder=folder: run_rounds(folder)) == 0
        cut = RunStore(folder / "run")
        assert same(cut.latest(), whole.latest())
        assert [one.round for one in cut.history()] == [1, 2, 3]
        assert cut.evaluations() == whole.evaluations()
    assert deaths > 8


def test_a_kill_at_every_write_that_closes_a_round_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    for die_at in range(100):
        folder = tmp_path / str(die_at)
        store = begun(folder)
        before = advance(store, store.latest())
        code = in_a_process(lambda store=store, before=before: advance(store, before) and None, die_at)
        found = RunStore(folder).latest()
        assert found.round in (1, 2)
        assert same(found, before if found.round == 1 else advance(begun(folder / "x"), before))
        assert [one.round for one in RunStore(folder).history()] == list(range(1, found.round + 1))
        if code == 0:
            assert found.round == 2
            break
    assert die_at > 8
