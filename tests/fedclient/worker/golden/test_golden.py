from __future__ import annotations

import json
import os
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from PIL import Image

from fedclient.worker.golden import GoldenSet
from fedclient.worker.golden.choosing import add_by_hand, sides_kept
from fedclient.worker.golden.pictures import spread
from fedclient.worker.settings import WorkerSettings
from fedclient.worker.training.setup import Site
from fedspect import files
from fedspect.data.classes import ClassList
from fedspect.data.pictures import CheckedPicture
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import ClassError, DamagedFileError, DataError, DiskFullError, PictureError

PREPROCESSING = Preprocessing(size=32, channels=1, mean=(0.5,), std=(0.25,))
CLASSES = ClassList(("plain", "striped"), {"stripes": "striped"})


@pytest.fixture
def golden(tmp_path: Path) -> GoldenSet:
    return GoldenSet(tmp_path / "home" / "golden")


def drawn(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40), dtype=np.uint8)).save(path)
    return path


def test_a_set_that_nobody_chose_is_empty(golden: GoldenSet) -> None:
    assert not golden.exists()
    assert golden.pictures() == []
    assert golden.load(PREPROCESSING).pixels.shape == (0, 1, 32, 32)


def test_the_set_survives_its_pictures_folder(
    golden: GoldenSet, pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    folder = tmp_path / "line"
    shutil.copytree(pictures[0].path.parent.parent, folder)
    here = [
        CheckedPicture(
            each.picture.__class__(folder / each.name, each.name, each.label),
            each.digest,
            64,
            64,
            1,
            8,
            each.group,
        )
        for each in pictures[:4]
    ]
    assert golden.take(here) == 4
    shutil.rmtree(folder)
    loaded = golden.load(PREPROCESSING)
    assert loaded.pixels.shape == (4, 1, 32, 32)
    assert sorted(loaded.labels) == sorted(each.label for each in pictures[:4])
    expected = {each.name: PREPROCESSING.load(each.path) for each in pictures[:4]}
    for name, pixels in zip(loaded.names, loaded.pixels):
        assert np.array_equal(pixels, expected[name])


def test_taking_again_adds_what_is_new_and_drops_nothing(
    golden: GoldenSet, pictures: List[CheckedPicture]
) -> None:
    assert golden.take(pictures[:4]) == 4
    assert golden.take(pictures[2:6]) == 2
    assert len(golden.pictures()) == 6


def test_a_copy_that_was_changed_or_is_gone_is_named(
    golden: GoldenSet, pictures: List[CheckedPicture]
) -> None:
    golden.take(pictures[:2])
    path = golden.path(golden.pictures()[0])
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    with pytest.raises(DamagedFileError, match="changed"):
        golden.load(PREPROCESSING)
    path.unlink()
    with pytest.raises(DamagedFileError, match=path.name):
        golden.load(PREPROCESSING)
    golden.take(pictures[:2])
    path.write_bytes(content)
    assert len(golden.load(PREPROCESSING).names) == 2


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1, "pictures": [{"file": "../../x.png"}]}']
)
def test_a_damaged_manifest_is_named(golden: GoldenSet, content: bytes) -> None:
    golden.folder.mkdir(parents=True)
    golden.manifest_path.write_bytes(content)
    with pytest.raises(DamagedFileError):
        golden.pictures()


def test_a_full_disk_leaves_the_set_as_it_was(
    golden: GoldenSet, pictures: List[CheckedPicture], monkeypatch: pytest.MonkeyPatch
) -> None:
    golden.take(pictures[:2])
    before = golden.pictures()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFullError):
        golden.take(pictures[:4])
    monkeypatch.undo()
    assert golden.pictures() == before
    golden.take(pictures[:4])
    assert len(golden.load(PREPROCESSING).names) == 4


def labels(pictures: List[CheckedPicture]) -> Dict[str, str]:
    return {each.digest: each.label or "" for each in pictures}


def test_a_bounded_set_takes_the_classes_in_turn_and_always_the_same_ones(
    golden: GoldenSet, pictures: List[CheckedPicture]
) -> None:
    known = labels(pictures)
    assert Counter(known[digest] for digest in spread(known, 6)) == {"plain": 3, "striped": 3}
    assert spread(labels(list(reversed(pictures))), 6) == spread(known, 6)
    assert golden.take(pictures, 6) == 6
    assert golden.take(pictures, 6) == 0
    assert {each.digest for each in golden.pictures()} == set(spread(known, 6))


def test_a_full_set_ages_with_its_share_and_keeps_what_was_added_by_hand(
    golden: GoldenSet, pictures: List[CheckedPicture], tmp_path: Path
) -> None:
    [by_hand] = golden.add([drawn(tmp_path / "by-hand.png", 7)], "plain")
    first, later = pictures[:8], pictures[8:]
    golden.take(first, 6)
    new = golden.take(later, 6)  # the first are gone from the folder, and still count
    kept = {each.digest for each in golden.pictures()}
    assert kept - {by_hand.digest} == set(spread(labels(pictures), 6)) & (
        set(spread(labels(first), 6)) | set(labels(later))
    )
    assert 0 < new < 6
    assert by_hand in golden.pictures()
    assert {path.name for path in (golden.folder / "pictures").iterdir()} == {
        each.file for each in golden.pictures()
    }


def test_what_was_removed_stays_out_until_it_is_added_by_hand(
    golden: GoldenSet, pictures: List[CheckedPicture]
) -> None:
    golden.take(pictures[:4])
    first, second = golden.pictures()[:2]
    assert golden.remove([first.name, second.digest[:8]]) == [first, second]
    assert golden.take(pictures[:4]) == 0
    assert len(golden.pictures()) == 2 and not golden.path(first).exists()
    with pytest.raises(DataError, match="no such golden picture"):
        golden.remove([golden.pictures()[0].name, first.name])
    assert len(golden.pictures()) == 2
    golden.add([pictures[0].path], "plain")
    golden.take(pictures[:4])
    assert pictures[0].digest in {each.digest for each in golden.pictures()}


def test_a_picture_added_while_the_share_is_taken_is_not_lost(
    golden: GoldenSet, pictures: List[CheckedPicture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share is taken by a deployment, and somebody adds a picture while it copies."""
    adding = threading.Thread(target=golden.add, args=([drawn(tmp_path / "by-hand.png", 7)], "plain"))
    write = GoldenSet._write

    def slowly(self: GoldenSet, *arguments: Any) -> None:
        monkeypatch.setattr(GoldenSet, "_write", write)
        adding.start()
        adding.join(0.5)  # without a lock it is done by now, and lost below
        write(self, *arguments)

    monkeypatch.setattr(GoldenSet, "_write", slowly)
    golden.take(pictures[:4])
    adding.join()
    assert Counter(each.source for each in golden.pictures()) == {"share": 4, "added": 1}
    assert len(golden.load(PREPROCESSING).names) == 5


def test_a_picture_added_by_hand_never_trains(golden: GoldenSet, tmp_path: Path) -> None:
    site, state = tmp_path / "pictures", tmp_path / "home" / "state"
    for number in range(12):
        drawn(site / ("plain" if number % 2 else "striped") / f"{number}.png", number)
    by_hand = drawn(tmp_path / "elsewhere.png", 100)
    [added] = add_by_hand(golden, [by_hand], "Stripes", classes=CLASSES, state=state)
    assert (added.label, added.source) == ("striped", "added")
    shutil.copy(by_hand, site / "striped" / "later.png")
    found = site_of(site, state)
    assert "striped/later.png" in [each.name for each in found.split.sides["golden"]]


def test_a_jpeg_of_several_pictures_and_a_name_of_any_bytes_are_taken(
    golden: GoldenSet, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"\xfc.jpg")
    first, second = (Image.fromarray(np.full((40, 40), tone, dtype=np.uint8)) for tone in (60, 200))
    first.save(path, "MPO", save_all=True, append_images=[second])
    [added] = golden.add([path], "plain")
    assert golden.path(added).suffix == ".jpeg" and golden.path(added).read_bytes() == path.read_bytes()
    assert golden.pictures() == [added] and added.name == r"\udcfc.jpg"
    assert golden.load(PREPROCESSING).pixels.mean() == pytest.approx(60, abs=2)


def test_a_picture_that_trains_is_not_taken_by_hand(golden: GoldenSet, tmp_path: Path) -> None:
    site, state = tmp_path / "pictures", tmp_path / "home" / "state"
    for number in range(12):
        drawn(site / ("plain" if number % 2 else "striped") / f"{number}.png", number)
    trained = site_of(site, state).split.sides["train"][0]
    with pytest.raises(DataError, match="would praise every model"):
        add_by_hand(golden, [trained.path], "plain", classes=CLASSES, state=state)
    assert golden.pictures() == []


def test_unknown_classes_and_files_that_are_no_pictures_are_refused(
    golden: GoldenSet, tmp_path: Path
) -> None:
    state = tmp_path / "home" / "state"
    good = drawn(tmp_path / "good.png", 1)
    with pytest.raises(ClassError):
        add_by_hand(golden, [good], "scratch", classes=CLASSES, state=state)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    for broken in (bad, tmp_path / "missing.png"):
        with pytest.raises(PictureError):
            add_by_hand(golden, [good, broken], "plain", classes=CLASSES, state=state)
    assert golden.pictures() == []


def test_a_sites_sides_stay_when_pictures_are_added(tmp_path: Path) -> None:
    site, state = tmp_path / "pictures", tmp_path / "home" / "state"
    for number in range(20):
        drawn(site / ("plain" if number % 2 else "striped") / f"{number}.png", number)
    before = site_of(site, state).split.sides
    assert len(before["golden"]) == 2
    for number in range(20, 30):
        drawn(site / ("plain" if number % 2 else "striped") / f"{number}.png", number)
    after = site_of(site, state).split.sides
    for side, members in before.items():
        assert {each.digest for each in members} <= {each.digest for each in after[side]}
    assert not {each.digest for each in after["train"]} & {each.digest for each in after["golden"]}


def test_a_ledger_is_written_whole_by_one_process_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), sides_kept(tmp_path) as ledger:
        ledger.reserve("a" * 32, "golden")
        raise RuntimeError
    assert not (tmp_path / "sides.json").exists()
    with sides_kept(tmp_path) as ledger:
        ledger.reserve("a" * 32, "golden")
        ledger.reserve("a" * 32, "train")
    assert json.loads((tmp_path / "sides.json").read_text())["sides"] == {"a" * 32: "golden"}


def site_of(pictures: Path, state: Path) -> Site:
    state.mkdir(parents=True, exist_ok=True)
    settings = WorkerSettings(
        plant="plant-1",
        classes=list(CLASSES.names),
        aliases=dict(CLASSES.aliases),
        data=pictures,
        base=state,
        state=state,
        cache=state,
    )
    return Site(settings)
