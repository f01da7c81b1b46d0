from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from fedclient.worker.training import plant_state as state_module
from fedclient.worker.training.plant_worker import NodeCalls, PlantWorker
from fedspect.data.pictures import CheckedPicture
from fedspect.errors import UpdateFormatError
from fedspect.model.levels import head_state
from fedspect.training.settings import TrainingSettings
from fedspect.update.change import apply_change
from fedspect.update.downlink import ServedModelState
from fedspect.update.encoding import decode, encode
from fedspect.update.round_messages import PlantDescription, RoundReply, RoundTask
from fedspect.update.schema import Arrays, Schema, is_statistic, version_of

MakeWorker = Callable[..., PlantWorker]
MakeTask = Callable[..., RoundTask]


def head_of(worker: PlantWorker) -> Arrays:
    state = head_state(worker.network, worker.freeze_levels)
    return {name: value.numpy().copy() for name, value in state.items()}


def content(reply: RoundReply) -> Dict[str, Any]:
    """All of a reply but how long it took."""
    return {**reply.model_dump(exclude={"seconds"}), "payload": reply.payload}


def sound(reply: RoundReply) -> RoundReply:
    assert reply.error is None, reply.error
    return reply


def change_in(reply: RoundReply, like: Arrays) -> Arrays:
    return decode(sound(reply).payload, Schema.of(like))


def test_the_reply_is_the_change_that_training_made(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker()
    start = head_of(worker)
    reply = worker.work(make_task(start))
    arrived = apply_change(start, change_in(reply, start))
    trained = head_of(worker)
    assert version_of(trained) != version_of(start)
    for name, values in trained.items():
        np.testing.assert_allclose(arrived[name], values, atol=1e-6)


def test_the_reply_counts_and_measures(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker()
    task = make_task(head_of(worker))
    reply = sound(worker.work(task))
    assert (reply.plant, reply.run_id, reply.round, reply.version) == ("plant-1", "run-1", 1, task.version)
    assert (reply.num_examples, reply.counts) == (8, {"plain": 4, "striped": 4})
    assert (reply.evaluated, np.sum(np.asarray(reply.confusion))) == (8, 8)
    assert reply.train_loss is not None and 0 < reply.train_loss < 10
    assert set(reply.seconds) == {"decode", "evaluate", "train", "encode", "total"}
    assert reply.holds == task.version


def test_what_is_evaluated_is_the_head_that_came_and_not_the_trained_one(
    make_worker: MakeWorker, make_task: MakeTask
) -> None:
    worker = make_worker()
    start = head_of(worker)
    before = sound(worker.work(make_task(start, train=False)))
    again = sound(worker.work(make_task(start)))
    after = sound(worker.work(make_task(head_of(worker), 2, train=False)))
    assert before.metrics == again.metrics
    assert before.metrics["loss"] != after.metrics["loss"]


def test_a_task_may_only_evaluate_or_only_train(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker()
    start = head_of(worker)
    evaluated = sound(worker.work(make_task(start, train=False)))
    assert (evaluated.trained, evaluated.num_examples, evaluated.evaluated) == (False, 0, 8)
    assert version_of(head_of(worker)) == version_of(start)
    trained = sound(worker.work(make_task(start, evaluate=False)))
    assert (trained.trained, trained.evaluated, trained.metrics) == (True, 0, {})


def test_nothing_frozen_moves(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker()
    head = set(head_of(worker))
    before = {name: value.clone() for name, value in worker.network.state_dict().items() if name not in head}
    sound(worker.work(make_task(head_of(worker))))
    after = worker.network.state_dict()
    assert all(
        bool((after[name] == value).all()) for name, value in before.items() if "num_batches" not in name
    )


def test_a_cold_worker_answers_as_a_warm_one(
    make_worker: MakeWorker, make_task: MakeTask, copy_state: Callable[[str, str], None]
) -> None:
    worker = make_worker()
    start = head_of(worker)
    first = sound(worker.work(make_task(start, reply_encoding="sparse-int8")))
    copy_state("state", "second life")
    second = make_task(apply_change(start, change_in(first, start)), 2, reply_encoding="sparse-int8")
    assert content(worker.work(second)) == content(make_worker("second life").work(second))


@pytest.mark.parametrize("batch_norm", ["average", "per-plant"])
def test_a_worker_killed_before_any_write_of_a_round_repeats_it_alike(
    make_worker: MakeWorker,
    make_task: MakeTask,
    copy_state: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    batch_norm: str,
) -> None:
    """The second round is killed before its first write, in another life before its second, and so on."""
    common = {"reply_encoding": "sparse-int8", "batch_norm": batch_norm}
    worker = make_worker()
    start = head_of(worker)
    first = make_task(start, 1, **common)
    second = make_task({name: values * np.float32(1.01) for name, values in start.items()}, 2, **common)
    sound(worker.work(first))
    copy_state("state", "reference")
    expected = content(sound(worker.work(second)))
    writes_left = 0

    class Killed(BaseException):
        pass

    def dying(write: Callable[[Path, Any], None]) -> Callable[[Path, Any], None]:
        def write_or_die(path: Path, data: Any) -> None:
            nonlocal writes_left
            writes_left -= 1
            if writes_left < 0:
                raise Killed
            write(path, data)

        return write_or_die

    for writer in ("write_bytes", "write_json"):
        monkeypatch.setattr(state_module, writer, dying(getattr(state_module, writer)))
    deaths = 0
    while True:
        copy_state("reference", f"life-{deaths}")
        writes_left = deaths
        try:
            assert content(make_worker(f"life-{deaths}").work(second)) == expected
            break
        except Killed:
            writes_left = 100
            assert content(make_worker(f"life-{deaths}").work(second)) == expected
            deaths += 1
    assert deaths == 4  # the head, its name, the state and the reply
    writes_left = 0  # a task that comes again is answered by a new process without a write
    assert content(make_worker(f"life-{deaths}").work(second)) == expected


def test_a_round_asked_again_otherwise_starts_from_the_state_before_it(
    make_worker: MakeWorker, make_task: MakeTask
) -> None:
    worker = make_worker()
    start = head_of(worker)
    task = make_task(start, reply_encoding="sparse-int8")
    first = sound(worker.work(task))
    other = sound(worker.work(make_task(start, reply_encoding="sparse-int8", proximal_mu=1.0)))
    assert content(worker.work(task)) == content(first) != content(other)


def test_what_was_not_sent_is_sent_later(make_worker: MakeWorker, make_task: MakeTask) -> None:
    """Sparse, then lossless: together they carry what two lossless rounds from the same heads carry."""
    sparse, exact = make_worker("sparse"), make_worker("exact")
    start = head_of(exact)
    sent = [
        change_in(sparse.work(make_task(start, 1, reply_encoding="sparse-int8", reply_density=0.05)), start),
        change_in(sparse.work(make_task(start, 2)), start),
    ]
    wanted = [change_in(exact.work(make_task(start, number)), start) for number in (1, 2)]
    for name in start:
        np.testing.assert_allclose(
            sent[0][name] + sent[1][name], wanted[0][name] + wanted[1][name], atol=1e-5
        )
    assert any(not np.allclose(sent[0][name], wanted[0][name], atol=1e-5) for name in start)


def test_fedbn_keeps_statistics_at_home(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker()
    start = head_of(worker)
    task = make_task(start, batch_norm="per-plant")
    reply = sound(worker.work(task))
    shared = {name: values for name, values in start.items() if not is_statistic(name)}
    assert set(change_in(reply, shared)) == set(shared)
    measured = {name: values for name, values in head_of(worker).items() if is_statistic(name)}
    fresh = make_worker()
    sound(fresh.work(make_task(start, 2, batch_norm="per-plant", train=False)))
    assert all(np.array_equal(head_of(fresh)[name], values) for name, values in measured.items())
    assert any(not np.array_equal(start[name], values) for name, values in measured.items())


def test_fedbn_statistics_outlive_a_run_only_where_the_next_goes_on_from_a_trained_head(
    make_worker: MakeWorker, make_task: MakeTask
) -> None:
    worker = make_worker()
    start = head_of(worker)
    sound(worker.work(make_task(start, batch_norm="per-plant")))
    trained = head_of(worker)
    statistic = next(name for name in start if name.endswith("running_mean"))
    other = {"run_id": "run-2", "batch_norm": "per-plant", "train": False}
    sound(worker.work(make_task(trained, 1, **other)))
    assert np.array_equal(head_of(worker)[statistic], trained[statistic])
    sound(worker.work(make_task(start, 1, **other)))
    assert np.array_equal(head_of(worker)[statistic], start[statistic])


def test_a_change_is_applied_to_the_head_that_is_held(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker()
    start = head_of(worker)
    served = ServedModelState.start(start)
    sound(worker.work(make_task(start, train=False)))
    for number in (2, 3):
        target = {name: values + np.float32(0.01 * number) for name, values in served.head.items()}
        served = served.advance(target, encoding="int8")
        holds = worker.describe().holds
        kind, payload = served.payload_for(holds)
        assert kind == "change"
        task = make_task(
            start, number, version=served.version, payload_kind=kind, holds=holds, payload=payload
        )
        reply = sound(make_worker().work(task.model_copy(update={"train": False})))
        assert reply.holds == served.version
        worker = make_worker()


def test_the_base_models_own_head_needs_no_payload(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker()
    whole = sound(worker.work(make_task(head_of(worker))))
    other = make_worker("other")
    none = sound(other.work(make_task(head_of(other), payload_kind="none", payload=b"")))
    assert none.payload == whole.payload


def test_a_change_against_a_head_that_is_not_held_is_reported_and_mended_by_the_next_whole_head(
    make_worker: MakeWorker, make_task: MakeTask
) -> None:
    worker = make_worker()
    start = head_of(worker)
    sound(worker.work(make_task(start, train=False)))
    served = ServedModelState.start({n: v + 1 for n, v in start.items()}).advance(start, encoding="int8")
    payload = served.payload_for(served.links[0].before)[1]
    task = make_task(start, 2, payload_kind="change", holds="f" * 64, payload=payload, version=served.version)
    reply = worker.work(task)
    assert reply.error is not None and reply.error.kind == "UpdateRefusedError"
    assert reply.holds is None  # so the server sends the whole head
    assert sound(worker.work(make_task(start, 2))).holds == version_of(start)


def test_a_damaged_head_on_the_disk_is_not_used(
    make_worker: MakeWorker, make_task: MakeTask, tmp_path: Path
) -> None:
    worker = make_worker()
    start = head_of(worker)
    sound(worker.work(make_task(start, train=False, version=version_of(start))))
    (file,) = (tmp_path / "state").rglob("heads/*.safetensors")
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 255
    file.write_bytes(bytes(damaged))
    reply = sound(make_worker().work(make_task(start, 2)))
    assert any("is damaged" in remark for remark in reply.remarks)


def test_another_base_model_is_refused(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker()
    reply = worker.work(make_task(head_of(worker), base_hash="d" * 64))
    assert reply.error is not None
    assert reply.error.kind == "UpdateRefusedError"
    assert "another base model" in reply.error.message
    assert not reply.trained


def test_a_head_for_other_frozen_levels_is_refused(make_worker: MakeWorker, make_task: MakeTask) -> None:
    reply = make_worker().work(make_task(head_of(make_worker("other", freeze_levels=10))))
    assert reply.error is not None and "another head" in reply.error.message


def test_diverged_training_is_an_error_and_the_next_round_is_sound(
    make_worker: MakeWorker, make_task: MakeTask
) -> None:
    wild = TrainingSettings(
        threads=1, batch_size=4, optimizer="sgd", gradient_clip=0.0, warmup_epochs=0.0, device="cpu"
    )
    worker = make_worker(settings=wild)
    start = head_of(worker)
    reply = worker.work(make_task(start, learning_rate=100.0, local_epochs=8))
    assert reply.error is not None
    assert "Traceback" not in reply.error.message
    assert sound(worker.work(make_task(start, 2, learning_rate=1e-4))).trained


def test_a_head_whose_answers_are_not_numbers_is_an_error_in_a_sentence(
    make_worker: MakeWorker, make_task: MakeTask
) -> None:
    worker = make_worker()
    huge = {name: np.full_like(values, 3e38) for name, values in head_of(worker).items()}
    reply = worker.work(make_task(huge, train=False))
    assert reply.error is not None
    assert (reply.error.kind, reply.error.exit_code) == ("ModelError", 30)
    assert "answers are not numbers; seen: 8 of 8 pictures" in reply.error.message


def test_a_plant_without_pictures_says_so(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker(train=[], evaluation=[])
    reply = worker.work(make_task(head_of(worker)))
    assert reply.error is not None
    assert (reply.error.kind, reply.error.exit_code) == ("NoPicturesError", 21)


def test_a_plant_with_one_picture_takes_part(
    make_worker: MakeWorker, make_task: MakeTask, pictures: List[CheckedPicture]
) -> None:
    worker = make_worker(train=pictures[:1], evaluation=[])
    reply = sound(worker.work(make_task(head_of(worker))))
    assert (reply.num_examples, reply.evaluated, reply.confusion) == (1, 0, None)


def test_a_picture_that_vanished_is_named(
    make_worker: MakeWorker, make_task: MakeTask, pictures: List[CheckedPicture], tmp_path: Path
) -> None:

    gone = replace(
        pictures[0], picture=replace(pictures[0].picture, path=tmp_path / "gone.png"), digest="0" * 32
    )
    worker = make_worker(train=[gone])
    reply = worker.work(make_task(head_of(worker)))
    assert reply.error is not None and "gone.png" in reply.error.message


def test_a_disk_that_cannot_be_written_is_an_error_and_not_a_crash(
    make_worker: MakeWorker, make_task: MakeTask, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    worker = make_worker()
    reply = worker.work(make_task(head_of(worker)))
    assert reply.error is not None
    assert reply.error.exit_code in range(50, 60)


def test_plants_of_other_names_see_their_pictures_in_other_orders(
    make_worker: MakeWorker, make_task: MakeTask
) -> None:
    one, two = make_worker("one"), make_worker("two", name="plant-2")
    task = make_task(head_of(one))
    assert one.work(task).payload != two.work(task).payload


def test_a_plant_describes_itself(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker()
    before = PlantDescription.from_bytes(NodeCalls(worker).describe())
    assert (before.plant, before.classes, before.holds) == ("plant-1", ["plain", "striped"], None)
    assert before.counts == before.evaluation_counts == {"plain": 4, "striped": 4}
    assert before.base_hash == worker.base.content_hash
    task = make_task(head_of(worker), train=False)
    sound(worker.work(task))
    assert make_worker().describe().holds == task.version


def test_the_port_carries_bytes_and_bounds_them(make_worker: MakeWorker, make_task: MakeTask) -> None:
    worker = make_worker()
    port = NodeCalls(worker)
    reply = RoundReply.from_bytes(port.work(make_task(head_of(worker), train=False).to_bytes()))
    assert sound(reply).evaluated == 8
    with pytest.raises(UpdateFormatError):
        port.work(b"garbage")
    with pytest.raises(UpdateFormatError, match="larger than any"):
        port.work(bytes(100_000_000))


def test_progress_is_told(make_worker: MakeWorker, make_task: MakeTask) -> None:
    seen: List[str] = []
    worker = make_worker()
    sound(worker.work(make_task(head_of(worker)), lambda event: seen.append(event.stage)))
    assert {"prediction", "training"} <= set(seen)


def test_an_interrupt_is_passed_on(make_worker: MakeWorker, make_task: MakeTask) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    worker = make_worker()
    task = make_task(head_of(worker))
    with pytest.raises(KeyboardInterrupt):
        worker.work(task, interrupt)
    assert content(sound(worker.work(task))) == content(make_worker("undisturbed").work(task))


def test_a_whole_head_must_be_the_one_that_was_announced(
    make_worker: MakeWorker, make_task: MakeTask
) -> None:
    worker = make_worker()
    start = head_of(worker)
    reply = worker.work(
        make_task({n: v * 1.1 for n, v in start.items()}, payload=encode(start, encoding="int8"))
    )
    assert reply.error is not None and "not the one that was announced" in reply.error.message
