from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedclient.worker.line.decision_policy import DecisionPolicy
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.monitoring.telemetry import Telemetry
from fedclient.worker.line.serving.dynamic_batcher import DynamicBatcher
from fedclient.worker.line.settings import read_settings
from fedclient.worker.line.watch.journal import Journal, key_of
from fedclient.worker.line.watch.watcher import Watcher, has_its_end
from fedspect.errors import NoPicturesError
from line_parts import grey, png, run


class Camera:
    """A folder, and the watch over it as one process after the other has it."""

    def __init__(self, home: LineHome, folder: Path) -> None:
        self.home, self.folder = home, folder
        folder.mkdir()
        self.journal_path = home.line / "watch" / "test.jsonl"
        self.output = folder.parent / "verdicts.jsonl"
        self.said: List[Dict[str, Any]] = []
        self.line = DynamicBatcher(read_settings(home.line).serving)
        model = home.open_current()
        self.line.replace(model, DecisionPolicy(read_settings(home.line).verdicts, model.classes))
        self.telemetry = Telemetry()
        self.watcher = self.restarted()

    def restarted(self, **changes: Any) -> Watcher:
        """A new process after a kill: nothing is left of the old one but its files."""
        journal = Journal(self.journal_path, self.output)
        times = {"settle": 0.0, "give_up": 60.0, **changes}
        self.watcher = Watcher(self.folder, self.line, journal, self.telemetry, self.said.append, **times)
        return self.watcher

    def put(self, name: str, tone: int) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(grey(tone)))
        return path

    def files(self) -> List[str]:
        return [row["file"] for row in self.said]

    def written(self) -> List[Dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def close(self) -> None:
        self.line.close()
        self.telemetry.close()


@pytest.fixture
def camera(home: LineHome, tmp_path: Path) -> Iterator[Camera]:
    made = Camera(home, tmp_path / "camera")
    yield made
    made.close()


def test_each_new_picture_gets_one_verdict(camera: Camera) -> None:
    camera.put("1.png", 128)
    camera.put("sub/2.png", 60)
    (camera.folder / "3.txt").write_text("no picture")
    (camera.folder / ".4.png").write_bytes(png(grey(1)))
    assert camera.watcher.look() == 2 and camera.watcher.look() == 0
    assert {row["file"]: (row["class"], row["verdict"]) for row in camera.said} == {
        "1.png": ("sound", "pass"),
        "sub/2.png": ("dark", "reject"),
    }
    assert [row["seq"] for row in camera.said] == [1, 2] and camera.written() == camera.said


def test_nothing_comes_twice_after_a_restart_and_what_came_meanwhile_is_not_lost(camera: Camera) -> None:
    camera.put("1.png", 128)
    camera.watcher.look()
    camera.put("2.png", 60)
    assert camera.restarted().look() == 1
    assert camera.files() == ["1.png", "2.png"]


ODD_NAMES = (
    os.fsdecode(b"\xfc 1.png"),
    "ü\x85\u2028\u2029 2.png",
)  # of a latin-1 camera; signs that end a line elsewhere


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_of_any_bytes_is_written_and_known_again_after_a_restart(camera: Camera, name: str) -> None:
    camera.put(name, 128)
    assert camera.watcher.look() == 1
    facts = (camera.folder / name).stat()
    again = Journal(camera.journal_path, camera.output)
    assert again.knows("another inode" + key_of(facts)[key_of(facts).index("-") :], name)
    assert again.count == 1
    for path in camera.journal_path.parent.glob("*.carried"):
        path.unlink()  # then the output itself says how far it is
    assert camera.restarted().look() == 0
    (line,) = camera.output.read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert json.loads(line) == camera.said[0] and camera.files() == [name]


def test_a_renamed_picture_is_the_same_and_a_rewritten_one_is_another(camera: Camera) -> None:
    path = camera.put("1.png", 128)
    camera.watcher.look()
    path.rename(camera.folder / "archive.png")
    assert camera.watcher.look() == 0
    camera.put("archive.png", 60)
    assert camera.watcher.look() == 1
    assert [row["class"] for row in camera.said] == ["sound", "dark"]


def test_a_half_written_picture_is_waited_for(camera: Camera) -> None:
    content = png(grey(60, 80))
    path = camera.folder / "1.png"
    with path.open("wb") as file:
        for part in (content[:20], content[20:60], content[60:-8]):
            file.write(part)
            file.flush()
            assert camera.watcher.look() == 0
            assert camera.watcher.pending == 1
        file.write(content[-8:])
    assert camera.watcher.look() == 1
    assert camera.said[0]["class"] == "dark" and camera.watcher.pending == 0


def test_a_picture_must_rest_before_it_is_read(camera: Camera) -> None:
    watcher = camera.restarted(settle=0.2)
    path = camera.put("1.png", 60)
    assert watcher.look() == 0
    time.sleep(0.25)
    os.utime(path)  # written to once more
    assert watcher.look() == 0
    time.sleep(0.25)
    assert watcher.look() == 1


def test_a_picture_that_stays_damaged_is_a_persons_to_see(camera: Camera) -> None:
    (camera.folder / "1.png").write_bytes(png(grey(60, 80))[:60])
    (camera.folder / "2.png").write_bytes(b"")
    watcher = camera.restarted(give_up=0.0)
    assert watcher.look() == 2
    assert {row["verdict"] for row in camera.said} == {"ask"} and all(row["error"] for row in camera.said)
    camera.put("2.png", 128)
    watcher.look()
    assert camera.said[-1]["verdict"] == "pass"


def test_pictures_that_lie_there_already_can_be_left_out(camera: Camera) -> None:
    camera.put("old.png", 60)
    assert camera.watcher.skip_present() == 1
    camera.put("new.png", 60)
    camera.watcher.look()
    assert camera.files() == ["new.png"] and [row["file"] for row in camera.written()] == ["new.png"]


def test_a_line_that_was_journaled_but_not_written_out_is_carried_over(camera: Camera) -> None:
    for number in range(3):
        camera.put(f"{number}.png", 60 + number)
    camera.watcher.look()
    rows = camera.written()
    for kept in (0, 1, 2, 3):
        for path in camera.journal_path.parent.glob("*.carried"):
            path.unlink()  # as after a power cut
        text = "".join(json.dumps(row) + "\n" for row in rows[:kept])
        camera.output.write_text(text + '{"seq": 4, "fi')  # and torn in the middle of a line
        camera.restarted()
        assert _whole(camera.output) == rows


@pytest.mark.parametrize("kind", ["moved", "moved, and a new one made", "copied and truncated"])
def test_an_output_that_was_rotated_away_goes_on_behind_its_last_line(camera: Camera, kind: str) -> None:
    for number in range(3):
        camera.put(f"{number}.png", 60 + number)
    camera.watcher.look()
    if kind.startswith("moved"):
        camera.output.rename(camera.output.with_name("verdicts.jsonl.1"))
    if kind != "moved":
        camera.output.write_text("")
    camera.put("3.png", 70)
    assert camera.restarted().look() == 1
    assert [row["seq"] for row in camera.written()] == [4]
    assert [row["seq"] for row in camera.said] == [1, 2, 3, 4]


def test_an_output_of_another_name_gets_every_line(camera: Camera) -> None:
    camera.put("1.png", 60)
    camera.watcher.look()
    rows = camera.written()
    camera.output = camera.output.with_name("other.jsonl")
    camera.restarted()
    assert camera.written() == rows


def _whole(path: Path) -> List[Dict[str, Any]]:
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


@given(st.integers(0, 400))
@settings(max_examples=25, deadline=None)
def test_a_torn_journal_gives_its_last_picture_again_and_no_other(tmp_path_factory: Any, cut: int) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder / "j.jsonl")
    for number in range(4):
        journal.add(f"key-{number}", {"file": f"{number}.png", "verdict": "pass"})
    content = (folder / "j.jsonl").read_bytes()
    (folder / "j.jsonl").write_bytes(content[: max(0, len(content) - cut)])
    again = Journal(folder / "j.jsonl")
    known = [again.knows(f"key-{number}", "") for number in range(4)]
    assert known == sorted(known, reverse=True)  # only the newest can be missing
    row = again.add("key-new", {"file": "new.png"})
    assert row["seq"] == sum(known) + 1
    third = Journal(folder / "j.jsonl")
    assert [third.knows(f"key-{number}", "") for number in range(4)] == known


def test_a_large_journal_forgets_pictures_that_are_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", largest=500, absent=0)
    for number in range(50):
        journal.add(f"key-{number}", {"file": f"{number}.png"})
    journal.forget_absent({"key-7": "7.png"})
    assert Journal(tmp_path / "j.jsonl").knows("key-8", "8.png")  # absent only once
    journal.forget_absent({"key-7": "7.png"})
    again = Journal(tmp_path / "j.jsonl")
    assert again.knows("key-7", "") and not again.knows("key-8", "8.png") and again.count == 50
    assert (tmp_path / "j.jsonl").stat().st_size < 500


def test_a_share_that_is_mounted_again_brings_no_picture_twice(tmp_path: Path) -> None:
    Journal(tmp_path / "j.jsonl").add("1a-10-99", {"file": "a.png"})
    again = Journal(tmp_path / "j.jsonl")
    assert again.knows("2b-10-99", "a.png") and again.knows("1a-10-99", "b.png")
    assert not again.knows("2b-10-99", "b.png") and not again.knows("2b-11-99", "a.png")


def test_a_folder_that_is_away_for_a_moment_has_lost_no_picture(camera: Camera) -> None:
    watcher = camera.restarted()
    camera.put("sub/1.png", 128)
    watcher.look()
    camera.folder.rename(camera.folder.parent / "away")
    assert watcher.look() == 0
    (camera.folder.parent / "away").rename(camera.folder)
    assert watcher.look() == 0 and len(camera.said) == 1


def test_a_picture_that_is_taken_away_before_its_turn_is_not_waited_for(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = camera.restarted(settle=60.0)
    path = camera.put("1.png", 128)
    watcher.look()
    path.rename(camera.folder.parent / "1.png")
    with monkeypatch.context() as patch:
        patch.setattr(watcher, "_device", -1)  # an unmounted mount point is a readable, empty folder
        watcher.look()
        assert watcher.pending == 1
    watcher.look()
    assert watcher.pending == 0 and not camera.said


def test_a_large_journal_forgets_nothing_while_a_share_is_away(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(camera.journal_path, camera.output, largest=1, absent=0)
    watcher = Watcher(camera.folder, camera.line, journal, camera.telemetry, camera.said.append, settle=0)
    for number in range(3):
        camera.put(f"{number}.png", 60)
    watcher.look()
    for path in camera.folder.iterdir():  # an unmounted mount point is a readable, empty folder
        path.rename(camera.folder.parent / path.name)
    for _ in range(3):
        watcher.look()
    (camera.folder / "3.png").write_bytes(b"of another device")
    monkeypatch.setattr(watcher, "_device", -1)
    for _ in range(3):
        watcher.look()
    (camera.folder / "3.png").unlink()
    for number in range(3):
        (camera.folder.parent / f"{number}.png").rename(camera.folder / f"{number}.png")
    watcher.look()
    assert len(camera.said) == 3


def test_a_key_changes_with_the_content_and_not_with_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    first = key_of(path.stat())
    path.rename(tmp_path / "b")
    assert key_of((tmp_path / "b").stat()) == first
    (tmp_path / "b").write_bytes(b"22")
    assert key_of((tmp_path / "b").stat()) != first


def test_a_folder_that_is_not_there_is_refused(camera: Camera, home: LineHome, tmp_path: Path) -> None:
    with pytest.raises(NoPicturesError):
        Watcher(tmp_path / "nowhere", camera.line, Journal(tmp_path / "j"), camera.telemetry, print)
    done = run(home, "watch", str(tmp_path / "nowhere"))
    assert done.returncode == 21 and "Traceback" not in done.stderr


def test_the_command_answers_a_folder_once(home: LineHome, tmp_path: Path) -> None:
    folder, output = tmp_path / "camera", tmp_path / "out.jsonl"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(grey(90)))
    arguments = ("watch", str(folder), "--once", "--settle", "0", "--every", "0.05", "--output", str(output))
    done = run(home, *arguments)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["verdict"] for row in rows] == ["ask"] * 3 and output.read_text() == done.stdout
    assert run(home, *arguments).stdout == ""
    assert len(list(home.review.glob("*.png"))) >= 1


def test_the_command_prints_names_of_any_bytes(home: LineHome, tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    for name in ODD_NAMES:
        (folder / name).write_bytes(png(grey(128)))
    done = run(home, "watch", str(folder), "--once", "--settle", "0", "--every", "0.05")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]
    assert {row["file"] for row in rows} == set(ODD_NAMES)


def test_a_png_or_jpeg_without_its_last_mark_is_still_being_written() -> None:
    whole = png(grey(60, 30))
    assert has_its_end(whole) and has_its_end(whole + b" by a camera") and has_its_end(b"BM whatever")
    assert not has_its_end(whole[:-8])
    assert has_its_end(b"\xff\xd8 pixels \xff\xd9") and not has_its_end(b"\xff\xd8 pixels \xff")
