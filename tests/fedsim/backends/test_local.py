"""The local backend: one process, the same apps, one outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import linear_plants
from engine_jobs import head_of, linear_job
from fedclient.node.message_handler import MessageHandler, WorkerPort
from fedserver.rounds.events import Event, PlantReplied, RoundClosed, RunFinished
from fedserver.storage.run_store import RunStore
from fedsim.backends import run_backend
from fedsim.backends.local import LocalTransport
from fedsim.backends.workers import FactoryWorkers, forget_workers
from fedspect.errors import AlreadyRunningError, InterruptedRunError, QuorumError, SettingsError
from fedspect.protocol.messages import TRAIN


def test_a_run_learns_and_tells_of_every_round(tmp_path: Path) -> None:
    events: list[Event] = []
    finished = run_backend("local", linear_job(tmp_path), events.append)
    assert [event.record.round for event in events if isinstance(event, RoundClosed)] == [1, 2, 3]
    assert events[-1] == finished
    evaluations = RunStore(tmp_path / "rounds").evaluations()
    assert evaluations[3].mean["loss"] < evaluations[0].mean["loss"]


def test_the_same_seed_gives_the_same_model_with_any_number_of_threads(tmp_path: Path) -> None:
    heads = []
    for name, threads in (("a", 1), ("b", 1), ("c", 3)):
        run_backend("local", linear_job(tmp_path / name, threads=threads))
        heads.append(head_of(tmp_path / name))
    assert heads[0] == heads[1] == heads[2]


def test_ctrl_c_in_a_plants_work_ends_in_words_and_the_next_call_goes_on(tmp_path: Path) -> None:
    run_backend("local", linear_job(tmp_path / "whole"))
    replies = 0

    def interrupt(event: Event) -> None:
        nonlocal replies
        replies += isinstance(event, PlantReplied)
        if replies == 5:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        run_backend("local", linear_job(tmp_path / "cut"), interrupt)
    assert RunStore(tmp_path / "cut" / "rounds").latest().round == 1
    run_backend("local", linear_job(tmp_path / "cut"))
    assert head_of(tmp_path / "cut") == head_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "change", [{"seed": 6}, {"strategy": "fedadam"}, {"base_hash": "00" * 32}, {"classes": ("a", "b")}]
)
def test_a_folder_with_another_run_is_not_gone_on_with(tmp_path: Path, change: dict[str, Any]) -> None:
    run_backend("local", linear_job(tmp_path))
    with pytest.raises(SettingsError, match=f"another {next(iter(change))}"):
        run_backend("local", linear_job(tmp_path, **change))


def test_a_plant_that_cannot_work_ends_the_run_at_once_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(QuorumError, match="plant-2 has no pictures"):
        run_backend("local", linear_job(tmp_path, worker_factory="engine_jobs:make_worker_without_pictures"))


def test_with_a_smaller_quorum_the_others_go_on_without_it(tmp_path: Path) -> None:
    job = linear_job(tmp_path, worker_factory="engine_jobs:make_worker_without_pictures", quorum=2)
    run_backend("local", job)
    assert [one.plant for one in RunStore(tmp_path / "rounds").history()[0].plants] == ["plant-1", "plant-3"]


def test_a_run_is_run_by_one_process_at_a_time(tmp_path: Path) -> None:
    def run_again(event: Event) -> None:
        if isinstance(event, RoundClosed):
            run_backend("local", linear_job(tmp_path))

    with pytest.raises(AlreadyRunningError):
        run_backend("local", linear_job(tmp_path), run_again)


@pytest.mark.parametrize("name", ["no_such_module:make", "linear_plants:no_such_function", "linear_plants"])
def test_a_maker_of_workers_that_does_not_exist_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be found"):
        run_backend("local", linear_job(tmp_path, worker_factory=name))


def test_an_unknown_engine_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean local"):
        run_backend("locl", linear_job(tmp_path))


def test_a_finished_job_finishes_again_without_work(tmp_path: Path) -> None:
    finished = run_backend("local", linear_job(tmp_path))
    events: list[Event] = []
    assert run_backend("local", linear_job(tmp_path), events.append) == finished
    assert [type(event) for event in events] == [RunFinished]


# -- the transport itself ------------------------------------------------------------------------------------


class Keeping:
    """A worker that keeps the very bytes that it was given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def work(self, task: bytes) -> bytes:
        self.given.append(task)
        return task

    def describe(self) -> bytes:
        return b""


def send(transport: LocalTransport, node: int) -> str:
    (identity,) = transport.send([node], TRAIN, f"task for {node}".encode(), lifetime=60.0, group="1")
    assert identity is not None
    return identity


@pytest.mark.parametrize("threads", [1, 2])
def test_every_message_is_answered_once(threads: int) -> None:
    transport = LocalTransport([MessageHandler(Keeping) for _ in range(2)], threads=threads)
    waiting = [send(transport, node) for node in (2, 1, 2)]
    found: dict[str, bytes] = {}
    while len(found) < 3:
        found.update({reply.message: reply.body for reply in transport.receive(waiting)})
    assert [found[one] for one in waiting] == [b"task for 2", b"task for 1", b"task for 2"]
    assert list(transport.receive(waiting)) == []
    transport.close()


def test_work_begins_when_its_answer_is_asked_for() -> None:
    worker = Keeping()
    transport = LocalTransport([MessageHandler(lambda: worker)])
    identity = send(transport, 1)
    assert worker.given == []
    assert list(transport.receive(["another"])) == []
    (reply,) = transport.receive([identity])
    assert worker.given == [b"task for 1"]
    assert list(transport.receive([identity])) == []
    assert reply.message == identity


def test_a_plant_without_a_worker_answers_with_a_failure() -> None:
    def no_worker() -> WorkerPort:
        raise AssertionError("never asked")

    transport = LocalTransport([MessageHandler(no_worker)])
    (reply,) = transport.receive([send(transport, 1)])
    assert reply.failure == "AssertionError: never asked"


def test_workers_are_made_once_per_process_and_can_be_forgotten(tmp_path: Path) -> None:
    workers = FactoryWorkers("linear_plants:make_worker", tmp_path, ("plant-1", "plant-2"))
    first = workers.worker(1)
    assert isinstance(first, linear_plants.LinearPlant) and first.name == "plant-2"
    assert workers.worker(1) is first
    forget_workers()
    assert workers.worker(1) is not first
    forget_workers()


def test_the_engines_result_is_what_plants_say_it_is(tmp_path: Path) -> None:
    finished = run_backend("local", linear_job(tmp_path))
    assert finished.evaluation is not None
    head = RunStore(tmp_path / "rounds").head(3)
    plant = linear_plants.LinearPlant("plant-1", tmp_path / "elsewhere")
    logits = plant.pictures @ head["head.weight"].T + head["head.bias"]
    accuracy = float((logits.argmax(1) == plant.labels).mean())
    assert finished.evaluation.plants["plant-1"]["accuracy"] == pytest.approx(accuracy)
    assert np.isfinite(head["head.weight"]).all()
