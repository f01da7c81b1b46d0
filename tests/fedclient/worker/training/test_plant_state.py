from __future__ import annotations

from pathlib import Path
from typing import Iterator, List, Optional

import numpy as np
import pytest

from fedclient.worker.training.plant_state import KEPT_ROUNDS, Carried, PlantState
from fedspect.errors import StorageError
from fedspect.update.round_messages import RoundReply
from fedspect.update.schema import Arrays, Schema, version_of
from update_crafting import change, head

SCHEMA = Schema.of(head())


@pytest.fixture
def state(tmp_path: Path) -> Iterator[PlantState]:
    yield PlantState(tmp_path, base_hash="a" * 64)


def files(state: PlantState) -> List[str]:
    return sorted(path.name for path in state.folder.rglob("*") if path.is_file())


def same(one: Optional[Arrays], other: Optional[Arrays]) -> bool:
    if one is None or other is None:
        return one is other
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_head_comes_back_to_the_last_bit_by_its_version(state: PlantState) -> None:
    state.keep_head(head(1), version_of(head(1)))
    assert state.held() == version_of(head(1))
    assert same(state.head(version_of(head(1)), SCHEMA), head(1))
    assert state.head("f" * 64, SCHEMA) is None


def test_two_heads_are_kept(state: PlantState) -> None:
    for seed in (1, 2, 3):
        state.keep_head(head(seed), version_of(head(seed)))
    known = [state.head(version_of(head(seed)), SCHEMA) is not None for seed in (1, 2, 3)]
    assert known == [False, True, True]
    assert state.held() == version_of(head(3))


def test_another_base_model_has_another_state(state: PlantState, tmp_path: Path) -> None:
    state.keep_head(head(), version_of(head()))
    state.commit("run", 1, Carried(change()))
    other = PlantState(tmp_path, base_hash="b" * 64)
    assert other.held() is None
    assert other.before("run", 2, SCHEMA) == Carried()


def test_a_round_starts_from_the_newest_earlier_one(state: PlantState) -> None:
    state.commit("run", 3, Carried(change(3)))
    state.commit("run", 7, Carried(change(7), head(7)))
    assert same(state.before("run", 8, SCHEMA).residual, change(7))
    assert same(state.before("run", 20, SCHEMA).statistics, head(7))
    assert same(state.before("run", 7, SCHEMA).residual, change(3))
    assert state.before("run", 3, SCHEMA) == Carried()
    assert state.before("other", 8, SCHEMA) == Carried()


def test_only_the_last_states_are_kept(state: PlantState) -> None:
    for number in range(1, 6):
        state.commit("run", number, Carried(change(number)))
    assert files(state) == ["run-000004.safetensors", "run-000005.safetensors"]
    assert KEPT_ROUNDS == 2


def test_a_round_committed_twice_counts_once(state: PlantState) -> None:
    state.commit("run", 4, Carried(change(4)))
    for seed in (5, 6):
        state.commit("run", 5, Carried(change(seed)))
    assert same(state.before("run", 5, SCHEMA).residual, change(4))
    assert same(state.before("run", 6, SCHEMA).residual, change(6))


def test_a_run_set_back_drops_the_rounds_that_never_were(state: PlantState) -> None:
    state.commit("run", 8, Carried(change(8)))
    state.commit("run", 9, Carried(change(9)))
    state.commit("run", 5, Carried(change(5)))
    assert files(state) == ["run-000005.safetensors"]


def test_a_residual_of_another_head_is_left_out_and_named(state: PlantState) -> None:
    state.commit(
        "run", 1, Carried({"w": np.ones((2, 2), np.float32)}, {"n.running_mean": np.ones(2, np.float32)})
    )
    carried = state.before("run", 2, SCHEMA)
    assert carried.residual is None
    assert same(carried.statistics, {"n.running_mean": np.ones(2, np.float32)})
    assert state.remarks == ["a residual of another head is left out"]


def test_the_newest_statistics_of_another_run_are_found(state: PlantState) -> None:
    state.commit("z-first", 9, Carried(None, head(1)))
    state.commit("a-second", 1, Carried(None, head(2)))
    assert same(state.latest_statistics("third"), head(2))
    assert same(state.latest_statistics("a-second"), head(1))
    assert PlantState(state.folder / "none", base_hash="c" * 64).latest_statistics("x") is None


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\xff" * 100, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_a_damaged_round_is_left_out_and_the_one_before_is_used(state: PlantState, content: bytes) -> None:
    state.commit("run", 1, Carried(change(1)))
    state.commit("run", 2, Carried(change(2)))
    (state.folder / "rounds" / "run-000002.safetensors").write_bytes(content)
    assert same(state.before("run", 3, SCHEMA).residual, change(1))
    assert "run-000002.safetensors is damaged" in state.remarks[0]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"version": 3}'])
def test_a_damaged_note_of_what_is_held_costs_a_download_only(state: PlantState, content: bytes) -> None:
    state.keep_head(head(), version_of(head()))
    (state.folder / "held.json").write_bytes(content)
    assert state.held() is None
    state.keep_head(head(), version_of(head()))
    assert state.held() == version_of(head())


def test_a_head_under_a_wrong_name_is_left_out(state: PlantState) -> None:
    state.keep_head(head(1), "f" * 64)
    assert state.head("f" * 64, SCHEMA) is None
    assert "not the head that its name says" in state.remarks[0]


def test_heads_can_be_forgotten(state: PlantState) -> None:
    state.keep_head(head(), version_of(head()))
    state.forget_heads()
    state.forget_heads()
    assert state.held() is None


def reply(number: int) -> RoundReply:
    return RoundReply(plant="p", run_id="r", round=number, base_hash="a" * 64, version="b" * 64, payload=b"x")


def test_the_last_reply_is_given_to_the_same_task_only(state: PlantState) -> None:
    assert state.reply_to(b"task") is None
    state.keep_reply(b"task", reply(1))
    assert state.reply_to(b"task") == reply(1)
    assert state.reply_to(b"another") is None
    state.keep_reply(b"another", reply(2))
    assert state.reply_to(b"task") is None


def test_a_damaged_reply_is_worked_out_again(state: PlantState) -> None:
    state.keep_reply(b"task", reply(1))
    path = state.folder / "reply.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"y")
    assert state.reply_to(b"task") is None
    assert "reply.bin is damaged" in state.remarks[0]
    assert not path.exists()


def test_an_unwritable_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    state = PlantState(tmp_path / "file", base_hash="a" * 64)
    with pytest.raises(StorageError):
        state.commit("run", 1, Carried(change()))


def test_a_value_without_dimensions_keeps_its_shape(state: PlantState) -> None:
    state.commit("run", 1, Carried(change()))
    residual = state.before("run", 2, SCHEMA).residual
    assert residual is not None and residual["scale"].shape == ()
