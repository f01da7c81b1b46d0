from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from fedclient.worker.deployments import Deployment, Deployments, history
from fedclient.worker.deployments.record import deployment_id
from fedspect import files
from fedspect.errors import DamagedFileError, DiskFullError, GateError


@pytest.fixture
def deployments(tmp_path: Path) -> Deployments:
    return Deployments(tmp_path / "deployments")


def candidate(number: int, **more: object) -> Deployment:
    version = f"{number:064x}"
    engines = {"backbone": "b" * 8, "head": f"head-{number}"}
    return Deployment(
        id=deployment_id(number, version, engines),
        version=version,
        number=number,
        classes=("crack", "good"),
        base_hash="a" * 64,
        engines=engines,
        figures={"accuracy": 0.9},
        **more,  # type: ignore[arg-type]
    )


def activated(deployments: Deployments, *numbers: int) -> list[Deployment]:
    made = []
    for number in numbers:
        deployments.add(candidate(number))
        made.append(deployments.activate(candidate(number).id, who="a test", why="it passed"))
    return made


def test_there_is_nothing_current_before_the_first_activation(deployments: Deployments) -> None:
    assert deployments.current() is None
    assert deployments.previous() is None
    assert deployments.stamp() == ""
    assert deployments.history() == []
    deployments.add(candidate(1))
    assert deployments.current() is None


def test_activating_says_who_when_why_and_what_was_measured(deployments: Deployments) -> None:
    before = time.time()
    [current] = activated(deployments, 1)
    assert deployments.current() == current
    assert (current.who, current.why) == ("a test", "it passed")
    assert before <= current.activated_at <= time.time()
    added, moved = deployments.history()
    assert (added.event, moved.event) == ("added", "activated")
    assert moved.figures == {"accuracy": 0.9}
    assert (moved.id, moved.before, moved.forced) == (current.id, None, False)


def test_every_move_changes_the_stamp_and_nothing_else_does(deployments: Deployments) -> None:
    activated(deployments, 1)
    stamp = deployments.stamp()
    deployments.add(candidate(2))
    deployments.note("refused", "f" * 64, 3, who="a test", why="worse")
    assert deployments.stamp() == stamp
    deployments.activate(candidate(2).id, who="a test", why="it passed")
    second = deployments.stamp()
    deployments.rollback(who="a test", why="worse on the line")
    assert len({stamp, second, deployments.stamp()}) == 3


def test_rollback_goes_back_step_by_step_and_stops_at_the_first(deployments: Deployments) -> None:
    one, two, _ = activated(deployments, 1, 2, 3)
    assert deployments.rollback(who="a test", why="w").id == two.id
    previous = deployments.previous()
    assert previous is not None and previous.id == one.id
    assert deployments.rollback(who="a test", why="w").id == one.id
    with pytest.raises(GateError, match="no earlier deployment"):
        deployments.rollback(who="a test", why="w")
    current = deployments.current()
    assert current is not None and current.id == one.id
    assert [entry.event for entry in deployments.history()][-2:] == ["rolled back", "rolled back"]


def test_rollback_passes_over_deployments_whose_engines_are_gone(deployments: Deployments) -> None:
    one, two, _ = activated(deployments, 1, 2, 3)
    went = deployments.rollback(who="a test", why="w", usable=lambda each: each.id != two.id)
    assert went.id == one.id


def test_rollback_passes_over_what_was_refused_or_retired(deployments: Deployments) -> None:
    one, two = activated(deployments, 1, 2)
    deployments.add(candidate(3), refused=["worse"])
    deployments.activate(candidate(3).id, who="a test", why="w", force=True)
    activated(deployments, 4)
    deployments.retire(two.version, who="headquarters", why="withdrawn")
    previous = deployments.previous()
    assert previous is not None and previous.id == one.id
    assert deployments.rollback(who="a test", why="w").id == one.id


def test_where_nothing_is_left_to_go_back_to_each_that_was_passed_over_is_named_with_its_reason(
    deployments: Deployments,
) -> None:
    one, two, three, _ = activated(deployments, 1, 2, 3, 4)
    deployments.retire(two.version, who="headquarters", why="withdrawn")
    with pytest.raises(GateError) as raised:
        deployments.rollback(
            who="a test", why="w", usable=lambda each: each.id != three.id and each.id != one.id
        )
    said = str(raised.value)
    assert (
        f"passed over: {three.id}: engines gone or damaged; {two.id}: retired (withdrawn); {one.id}" in said
    )
    assert f"fedclient engines activate {two.id} --force" in said


def test_a_later_refusal_does_not_take_away_what_the_line_has_run(deployments: Deployments) -> None:
    one, two = activated(deployments, 1, 2)
    kept = deployments.add(candidate(1), refused=["a picture takes 9.0 ms, 2.0 ms with the current engine"])
    assert (kept.id, kept.state, kept.reasons) == (one.id, "passed", ())
    assert [each.state for each in deployments.list()] == ["passed", "passed"]
    refused = deployments.history()[-1]
    assert (refused.event, refused.id, refused.why[:15]) == ("refused", one.id, "a picture takes")
    assert deployments.rollback(who="a test", why="w").id == one.id
    deployments.add(candidate(2), refused=["slow"])  # no longer one to go back to, but the line has run it
    assert deployments.activate(two.id, who="a test", why="w").id == two.id


def test_a_later_refusal_counts_for_what_the_line_has_never_run(deployments: Deployments) -> None:
    deployments.add(candidate(1))
    assert deployments.add(candidate(1), refused=["slow"]).state == "refused"
    with pytest.raises(GateError, match="was refused"):
        deployments.activate(candidate(1).id, who="a test", why="w")


def test_going_back_where_nothing_ever_ran_makes_no_folder(deployments: Deployments) -> None:
    with pytest.raises(GateError, match="runs no engine yet"):
        deployments.rollback(who="a test", why="w")
    assert not deployments.folder.exists()


def test_what_was_refused_is_activated_by_force_only_and_the_history_says_so(
    deployments: Deployments,
) -> None:
    deployments.add(candidate(1), refused=["3 escapes, 1 is allowed"])
    with pytest.raises(GateError, match="refused; seen: 3 escapes"):
        deployments.activate(candidate(1).id, who="a test", why="w")
    assert deployments.current() is None
    deployments.activate(candidate(1).id, who="a test", why="w", force=True)
    assert deployments.history()[-1].forced
    assert [entry.event for entry in deployments.history()] == ["refused", "activated"]


def test_a_retired_version_that_is_built_again_stays_retired(deployments: Deployments) -> None:
    one = deployments.add(candidate(1))
    deployments.retire(one.version, who="headquarters", why="withdrawn")
    for again in (candidate(1), candidate(1).model_copy(update={"id": "built-anew"})):
        kept = deployments.add(again)
        assert kept.state == "retired" and kept.reasons == ("withdrawn",)
        with pytest.raises(GateError, match="was retired; seen: withdrawn"):
            deployments.activate(kept.id, who="a", why="b")
    assert deployments.activate(one.id, who="a", why="b", force=True).id == one.id


def test_a_retired_version_keeps_running_but_is_not_activated_again(deployments: Deployments) -> None:
    _, two = activated(deployments, 1, 2)
    deployments.retire(two.version, who="headquarters", why="withdrawn")
    current = deployments.current()
    assert current is not None and current.id == two.id
    deployments.rollback(who="a test", why="w")
    with pytest.raises(GateError, match="was retired; seen: withdrawn"):
        deployments.activate(two.id, who="a test", why="w")
    assert [each.state for each in deployments.list()] == ["passed", "retired"]


def test_activating_an_unknown_deployment_names_those_that_exist(deployments: Deployments) -> None:
    [one] = activated(deployments, 1)
    for name in ("0002-none", "../../current", ""):
        with pytest.raises(GateError, match=f"accepted: {one.id}"):
            deployments.activate(name, who="a test", why="w")


def test_activating_what_is_current_changes_nothing(deployments: Deployments) -> None:
    [one] = activated(deployments, 1)
    stamp, history = deployments.stamp(), deployments.history()
    assert deployments.activate(one.id, who="another", why="again") == one
    assert (deployments.stamp(), deployments.history()) == (stamp, history)


def test_the_engines_of_the_current_and_the_nearest_earlier_deployments_are_kept(
    deployments: Deployments,
) -> None:
    assert deployments.engines_in_use() == set()
    activated(deployments, 1, 2, 3, 4)
    deployments.add(candidate(5))
    assert deployments.engines_in_use() == {"b" * 8, "head-4", "head-3", "head-2"}


def test_a_move_whose_line_of_history_is_missing_is_written_by_the_next_decision(
    deployments: Deployments,
) -> None:
    activated(deployments, 1, 2)
    lines = deployments.history_path.read_text().splitlines()
    deployments.history_path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    assert [entry.event for entry in deployments.history()] == ["added", "activated", "added", "activated"]
    deployments.note("refused", "f" * 64, 3, who="a test", why="worse")
    events = [json.loads(line)["event"] for line in deployments.history_path.read_text().splitlines()[-2:]]
    assert events == ["activated", "refused"]


def test_a_full_disk_leaves_what_is_current(
    deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    [one] = activated(deployments, 1)
    deployments.add(candidate(2))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFullError):
        deployments.activate(candidate(2).id, who="a test", why="w")
    with pytest.raises(DiskFullError):
        deployments.add(candidate(3))
    monkeypatch.undo()
    assert deployments.current() == one
    assert not list(deployments.folder.rglob(".writing-*"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}', b"\xff\xfe"])
def test_a_damaged_pointer_is_named_and_mended_by_activating(
    deployments: Deployments, content: bytes
) -> None:
    [one] = activated(deployments, 1)
    deployments.pointer_path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"engines list|backup"):
        deployments.current()
    deployments.activate(one.id, who="a test", why="mending")
    current = deployments.current()
    assert current is not None and current.id == one.id


@pytest.mark.parametrize("content", [b"{", None])
def test_the_history_knows_the_way_back_where_the_pointer_does_not(
    deployments: Deployments, content: bytes | None
) -> None:
    one, two, three, four = activated(deployments, 1, 2, 3, 4)
    deployments.rollback(who="a test", why="w")
    deployments.activate(two.id, who="a test", why="w")  # two after one and three
    if content is None:
        deployments.pointer_path.unlink()
    else:
        deployments.pointer_path.write_bytes(content)
    assert deployments.rollback(who="a test", why="w").id == three.id
    assert deployments.rollback(who="a test", why="w").id == one.id
    deployments.pointer_path.write_bytes(b"{")
    deployments.activate(four.id, who="a test", why="w")
    assert deployments.rollback(who="a test", why="w").id == one.id
    with pytest.raises(GateError, match="no earlier"):
        deployments.rollback(who="a test", why="w")


def test_the_history_is_bounded_and_keeps_the_moves(
    deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_ENTRIES", 5)
    monkeypatch.setattr(history, "SLACK", 3)
    one, two = activated(deployments, 1, 2)
    deployments.rollback(who="a test", why="scratches are missed")
    for number in range(3, 40):
        deployments.note("failed", f"{number:064x}", number, who="a test", why="w")
    entries = deployments.history()
    assert len(entries) <= 3 + 5 + 3 + 1
    assert entries[-1].number == 39
    assert [each.serial for each in entries if each.serial] == [1, 2, 3]
    assert deployments.left_behind(two.version) is not None
    deployments.pointer_path.unlink()
    deployments.activate(two.id, who="a test", why="w")
    assert deployments.rollback(who="a test", why="w").id == one.id


def test_many_threads_decide_one_after_the_other(deployments: Deployments) -> None:
    made = activated(deployments, 1, 2)

    def switch(index: int) -> None:
        for turn in range(10):
            deployments.activate(made[(turn + index) % 2].id, who=f"thread {index}", why="w")

    threads = [threading.Thread(target=switch, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    serials = [entry.serial for entry in deployments.history() if entry.serial]
    assert serials == list(range(1, len(serials) + 1))
    assert all(entry.before != entry.id for entry in deployments.history() if entry.event == "activated")


SWITCHING = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from fedclient.worker.deployments import Deployments
    deployments = Deployments(Path(sys.argv[1]))
    print("ready", flush=True)
    while True:
        for each in deployments.list():
            deployments.activate(each.id, who="a process", why="w")
    """
)


def test_a_process_killed_while_it_activates_leaves_one_whole_pointer(deployments: Deployments) -> None:
    activated(deployments, 1, 2)
    for kill in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", SWITCHING, str(deployments.folder)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.003 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        current = deployments.current()
        assert current is not None
        moves = [entry for entry in deployments.history() if entry.serial]
        assert [entry.serial for entry in moves] == list(range(1, len(moves) + 1))
        assert moves[-1].id == current.id
