"""Flower's own simulation, on Ray: the same model as in one process."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from engine_jobs import head_of, linear_job
from fedserver.rounds.events import Event, PlantReplied, RoundClosed
from fedserver.storage.run_store import RunStore
from fedsim.backends import run_backend
from fedspect.errors import InterruptedRunError, QuorumError, SettingsError
from torch_plants import torch_job

pytest.importorskip("ray")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_plants_on_ray_come_to_the_same_bits_as_in_one_process(tmp_path: Path) -> None:
    told: dict[str, list[Event]] = {"local": [], "ray": []}
    threads = set()

    def listen(event: Event) -> None:
        threads.add(threading.get_ident())
        told["ray"].append(event)

    run_backend("local", torch_job(tmp_path / "local"), told["local"].append)
    run_backend("ray", torch_job(tmp_path / "ray"), listen)
    assert head_of(tmp_path / "ray") == head_of(tmp_path / "local")
    stores = [RunStore(tmp_path / name / "rounds") for name in ("local", "ray")]
    assert stores[0].evaluations() == stores[1].evaluations()
    for name in ("local", "ray"):
        assert [event.record.round for event in told[name] if isinstance(event, RoundClosed)] == [1, 2]
    assert threading.get_ident() not in threads


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_stops_a_ray_run_in_words_and_it_can_go_on_in_one_process(tmp_path: Path) -> None:
    run_backend("local", linear_job(tmp_path / "whole"))
    interrupted = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, PlantReplied) and event.context.round == 2 and not interrupted.is_set():
            interrupted.set()
            waiting_for_it = signal.getsignal(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            # Python runs the handler in its main thread, some time later: go on once it has.
            until = time.monotonic() + 60
            while signal.getsignal(signal.SIGINT) is waiting_for_it and time.monotonic() < until:
                time.sleep(0.01)

    with pytest.raises(InterruptedRunError):
        run_backend("ray", linear_job(tmp_path / "cut", cpus_per_plant=0.5), listen)
    # Round 2 is closed where all of its answers had arrived together; no other round was begun.
    assert interrupted.is_set()
    assert RunStore(tmp_path / "cut" / "rounds").latest().round in (1, 2)
    run_backend("local", linear_job(tmp_path / "cut"))
    assert head_of(tmp_path / "cut") == head_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_plant_that_cannot_work_ends_a_ray_run_with_its_reason(tmp_path: Path) -> None:
    job = linear_job(tmp_path, worker_factory="engine_jobs:make_worker_without_pictures")
    with pytest.raises(QuorumError, match="plant-2 has no pictures"):
        run_backend("ray", job)


def test_a_maker_of_workers_that_does_not_exist_is_named_before_ray_starts(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be found"):
        run_backend("ray", linear_job(tmp_path, worker_factory="no_such_module:make"))
