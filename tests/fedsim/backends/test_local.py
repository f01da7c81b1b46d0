"""The local engine: one process, the same apps, one outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.common import Message, RecordDict

import linear_plants
from engine_jobs import head_of, linear_job
from fedclient.node.flower.clientapp import WorkerPort, build_client_app
from fedserver.rounds.events import Event, PlantReplied, RoundClosed, RunFinished
from fedserver.storage.run_store import RunStore
from fedsim.backends import run_engine
from fedsim.backends.local import LocalGrid
from fedsim.backends.workers import FactoryWorkers, forget_workers
from fedspect.errors import AlreadyRunningError, InterruptedRunError, QuorumError, SettingsError


def test_a_run_learns_and_tells_of_every_round(tmp_path: Path) -> None:
    events: list[Event] = []
    finished = run_engine("local", linear_job(tmp_path), events.append)
    assert [event.record.round for event in events if isinstance(event, RoundClosed)] == [1, 2, 3]
    assert events[-1] == finished
    evaluations = RunStore(tmp_path / "rounds").evaluations()
    assert evaluations[3].mean["loss"] < evaluations[0].mean["loss"]


def test_the_same_seed_gives_the_same_model_with_any_number_of_threads(tmp_path: Path) -> None:
    heads = []
    for name, threads in (("a", 1), ("b", 1), ("c", 3)):
        run_engine("local", linear_job(tmp_path / name, threads=threads))
        heads.append(head_of(tmp_path / name))
    assert heads[0] == heads[1] == heads[2]


def test_ctrl_c_in_a_plants_work_ends_in_words_and_the_next_call_goes_on(tmp_path: Path) -> None:
    run_engine("local", linear_job(tmp_path / "whole"))
    replies = 0

    def interrupt(event: Event) -> None:
        nonlocal replies
        replies += isinstance(event, PlantReplied)
        if replies == 5:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        run_engine("local", linear_job(tmp_path / "cut"), interrupt)
    assert RunStore(tmp_path / "cut" / "rounds").latest().round == 1
    run_engine("local", linear_job(tmp_path / "cut"))
    assert head_of(tmp_path / "cut") == head_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "change", [{"seed": 6}, {"strategy": "fedadam"}, {"base_hash": "00" * 32}, {"classes": ("a", "b")}]
)
def test_a_folder_with_another_run_is_not_gone_on_with(tmp_path: Path, change: dict[str, Any]) -> None:
    run_engine("local", linear_job(tmp_path))
    with pytest.raises(SettingsError, match=f"another {next(iter(change))}"):
        run_engine("local", linear_job(tmp_path, **change))


def test_a_plant_that_cannot_work_ends_the_run_at_once_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(QuorumError, match="plant-2 has no pictures"):
        run_engine("local", linear_job(tmp_path, worker_factory="engine_jobs:make_worker_without_pictures"))


def test_with_a_smaller_quorum_the_others_go_on_without_it(tmp_path: Path) -> None:
    job = linear_job(tmp_path, worker_factory="engine_jobs:make_worker_without_pictures", quorum=2)
    run_engine("local", job)
    assert [one.plant for one in RunStore(tmp_path / "rounds").history()[0].plants] == ["plant-1", "plant-3"]


def test_a_run_is_run_by_one_process_at_a_time(tmp_path: Path) -> None:
    def run_again(event: Event) -> None:
        if isinstance(event, RoundClosed):
            run_engine("local", linear_job(tmp_path))

    with pytest.raises(AlreadyRunningError):
        run_engine("local", linear_job(tmp_path), run_again)


@pytest.mark.parametrize("name", ["no_such_module:make", "linear_plants:no_such_function", "linear_plants"])
def test_a_maker_of_workers_that_does_not_exist_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be found"):
        run_engine("local", linear_job(tmp_path, worker_factory=name))


def test_an_unknown_engine_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean local"):
        run_engine("locl", linear_job(tmp_path))


def test_a_finished_job_finishes_again_without_work(tmp_path: Path) -> None:
    finished = run_engine("local", linear_job(tmp_path))
    events: list[Event] = []
    assert run_engine("local", linear_job(tmp_path), events.append) == finished
    assert [type(event) for event in events] == [RunFinished]


# -- the grid itself -----------------------------------------------------------------------------------------


class Keeping:
    """A worker that keeps the very bytes that it was given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def work(self, task: bytes) -> bytes:
        self.given.append(task)
        return task

    def describe(self) -> bytes:
        return b""


def grid_of(make: Callable[[], WorkerPort], count: int = 2, threads: int = 1) -> LocalGrid:
    workers = [make() for _ in range(count)]
    app = build_client_app(lambda context: workers[context.node_id - 1])
    return LocalGrid(app, [{} for _ in workers], threads=threads)


def task(node: int) -> Message:
    from fedserver.flower.envelope import content_with

    return Message(content_with(f"task for {node}".encode()), dst_node_id=node, message_type="train")


@pytest.mark.parametrize("threads", [1, 2])
def test_every_message_is_answered_once(threads: int) -> None:
    grid = grid_of(Keeping, threads=threads)
    replies = list(grid.send_and_receive([task(2), task(1), task(2)]))
    assert sorted(reply.metadata.src_node_id for reply in replies) == [1, 2, 2]
    assert len({reply.metadata.reply_to_message_id for reply in replies}) == 3
    grid.close()


def test_work_begins_when_its_answer_is_asked_for() -> None:
    worker = Keeping()
    grid = grid_of(lambda: worker, count=1)
    (identity,) = grid.push_messages([task(1)])
    assert worker.given == []
    assert list(grid.pull_messages(["another"])) == []
    (reply,) = grid.pull_messages([identity])
    assert worker.given == [b"task for 1"]
    assert list(grid.pull_messages([identity])) == []
    assert reply.metadata.reply_to_message_id == identity


def test_an_app_that_raises_answers_with_flowers_error() -> None:
    def no_worker(context: object) -> WorkerPort:
        raise AssertionError("never asked")

    grid = LocalGrid(build_client_app(no_worker), [{}])
    unknown = Message(RecordDict(), dst_node_id=1, message_type="evaluate")
    (reply,) = grid.send_and_receive([unknown])
    assert reply.has_error()


def test_workers_are_made_once_per_process_and_can_be_forgotten(tmp_path: Path) -> None:
    from flwr.app.user_config import UserConfig
    from flwr.common import Context

    workers = FactoryWorkers("linear_plants:make_worker", tmp_path, ("plant-1", "plant-2"))
    context = Context(1, 1, UserConfig({"partition-id": 1}), RecordDict(), UserConfig())
    first = workers(context)
    assert isinstance(first, linear_plants.LinearPlant) and first.name == "plant-2"
    assert workers(context) is first
    forget_workers()
    assert workers(context) is not first
    forget_workers()


def test_the_engines_result_is_what_plants_say_it_is(tmp_path: Path) -> None:
    finished = run_engine("local", linear_job(tmp_path))
    assert finished.evaluation is not None
    head = RunStore(tmp_path / "rounds").head(3)
    plant = linear_plants.LinearPlant("plant-1", tmp_path / "elsewhere")
    logits = plant.pictures @ head["head.weight"].T + head["head.bias"]
    accuracy = float((logits.argmax(1) == plant.labels).mean())
    assert finished.evaluation.plants["plant-1"]["accuracy"] == pytest.approx(accuracy)
    assert np.isfinite(head["head.weight"]).all()
