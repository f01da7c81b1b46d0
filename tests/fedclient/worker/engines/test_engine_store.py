from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedclient.worker.deployments import Deployment, Deployments
from fedclient.worker.engines import EngineKey, EngineStore, StoredEngine, open_engine
from fedspect.errors import DamagedFileError, DiskFullError, EngineError

KEY = EngineKey("ab" * 32, "onnxruntime", "1.19.2", "cpu-x86_64", "float32", "anyx1x64x64")
FACTS: Dict[str, Any] = {
    "part": "head",
    "metadata": {"part": "head"},
    "inputs": {"name": "features", "dtype": "float32", "shape": [None, 3]},
    "outputs": {"name": "logits", "dtype": "float32", "shape": [None, 2]},
}


def key(number: int) -> EngineKey:
    return replace(KEY, onnx_hash=f"{number:064x}")


def writing(content: bytes = b"engine") -> Callable[[Path], Dict[str, Any]]:
    def build(file: Path) -> Dict[str, Any]:
        file.write_bytes(content)
        return dict(FACTS)

    return build


def names(store: EngineStore) -> List[str]:
    return sorted(path.name for path in store.folder.iterdir() if path.name not in (".lock", ".building"))


def test_what_is_added_is_found_by_its_key_and_by_its_id(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    assert store.find(KEY) is None and store.list() == []
    added = store.add(KEY, writing())
    assert added == store.find(KEY) == store.get(added.id) == store.list()[0]
    assert added.file.read_bytes() == b"engine" and added.sidecar["part"] == "head"
    assert added.sidecar["built_at"] > 0 and added.sidecar["bytes"] == 6


@pytest.mark.parametrize("name", [field.name for field in fields(EngineKey)])
def test_any_difference_of_the_key_is_another_engine(name: str, tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    store.add(KEY, writing())
    other = replace(KEY, **{name: "tensorrt" if name == "kind" else "other"})
    assert other.name != KEY.name and store.find(other) is None


@given(st.lists(st.text(min_size=1, max_size=40), min_size=4, max_size=4))
def test_a_name_is_one_for_every_file_system(parts: List[str]) -> None:
    made = replace(KEY, runtime_version=parts[0], device=parts[1], shapes=parts[2] + parts[3])
    assert set(made.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and len(made.name) < 80


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    before = store.add(KEY, writing(b"old"))

    def failing(file: Path) -> Dict[str, Any]:
        file.write_bytes(b"half")
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        store.add(KEY, failing)
    assert names(store) == [before.id] and before.file.read_bytes() == b"old"


def test_a_full_disk_is_said_and_leaves_the_engine_that_was(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    before = store.add(KEY, writing(b"old"))

    def filling(file: Path) -> Dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    with pytest.raises(DiskFullError, match="no space left"):
        store.add(KEY, filling)
    assert names(store) == [before.id] and store.find(KEY) == before


SLEEPER = """
import sys, time
from pathlib import Path
from fedclient.worker.engines import EngineKey, EngineStore
def build(file):
    file.write_bytes(b"half an engine")
    print("writing", flush=True)
    time.sleep(60)
EngineStore(Path(sys.argv[1])).add(EngineKey(*sys.argv[2:]), build)
"""


def test_a_process_killed_in_a_build_leaves_a_store_that_goes_on(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    before = store.add(KEY, writing(b"old"))
    values = [getattr(KEY, field.name) for field in fields(EngineKey)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(store.folder), *values], stdout=subprocess.PIPE, env=environment
    )
    assert child.stdout is not None and child.stdout.readline() == b"writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert len(names(store)) == 2 and store.list() == [before]  # the half one is there, and no engine
    added = store.add(key(1), writing())
    assert names(store) == sorted([before.id, added.id])  # and now it is swept


def test_what_another_living_process_builds_is_left_alone(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")

    def build(file: Path) -> Dict[str, Any]:
        EngineStore(store.folder).add(key(1), writing())
        return writing()(file)

    store.add(KEY, build)
    assert len(store.list()) == 2


@pytest.mark.parametrize("damage", ["changed", "short", "gone"])
def test_a_damaged_file_is_named_when_opened_and_built_again_when_asked_for(
    damage: str, tmp_path: Path
) -> None:
    store = EngineStore(tmp_path / "engines")
    stored = store.add(KEY, writing(b"an engine"))
    if damage == "gone":
        stored.file.unlink()
    else:
        stored.file.write_bytes(b"an enginE" if damage == "changed" else b"an")
    with pytest.raises(DamagedFileError, match=r"not what was built.*engines build"):
        open_engine(store.get(stored.id))
    assert store.find(KEY) is None
    again = store.add(KEY, writing(b"an engine"))
    assert store.find(KEY) == again and len(names(store)) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"format": 1, "key": {}}', b"\xff\xfe", b"null", b'"text"']
)
def test_a_damaged_sidecar_is_named_and_never_counts_as_an_engine(content: bytes, tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    good, bad = store.add(key(1), writing()), store.add(KEY, writing())
    (bad.folder / "engine.json").write_bytes(content)
    with pytest.raises(DamagedFileError):
        store.get(bad.id)
    assert store.find(KEY) is None and store.list() == [good] and store.damaged() == [bad.id]
    store.remove(bad.id)
    assert names(store) == [good.id]


def test_a_sidecar_of_another_engine_is_damage(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    one, other = store.add(key(1), writing()), store.add(key(2), writing())
    (one.folder / "engine.json").write_bytes((other.folder / "engine.json").read_bytes())
    with pytest.raises(DamagedFileError, match="of another engine"):
        store.get(one.id)


def test_a_sidecar_with_other_edges_is_damage_when_opened(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    stored = store.add(KEY, writing())
    content = json.loads((stored.folder / "engine.json").read_text())
    (stored.folder / "engine.json").write_text(json.dumps({**content, "inputs": {"name": 3}}))
    with pytest.raises(DamagedFileError, match="sidecar cannot be read"):
        open_engine(store.get(stored.id))


def used(store: EngineStore, stored: StoredEngine, ago: float) -> None:
    moment = time.time() - ago
    os.utime(str(stored.folder / "engine.json"), (moment, moment))


def test_the_longest_unused_goes_first_when_the_store_is_full(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines", limit_bytes=45_000)  # and a sidecar each
    kept = [store.add(key(number), writing(b"x" * 10_000)) for number in range(4)]
    for stored, ago in zip(kept, (40, 10, 30, 20)):
        used(store, stored, ago)
    added = store.add(key(9), writing(b"x" * 20_000))
    assert {stored.id for stored in store.list()} == {kept[1].id, kept[3].id, added.id}


def test_an_engine_larger_than_the_store_is_refused(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines", limit_bytes=1000)
    with pytest.raises(EngineError, match="larger than its store"):
        store.add(KEY, writing(b"x" * 2000))
    assert names(store) == []


def deployed(home: Path, stored: StoredEngine, number: int = 1) -> None:
    deployments = Deployments(home / "deployments")
    made = Deployment(
        id=f"d{number}",
        version="v",
        number=number,
        classes=("a",),
        base_hash="b",
        engines={"whole": stored.id},
    )
    deployments.add(made)
    deployments.activate(made.id, who="a test", why="to keep it")


def test_what_the_line_runs_is_neither_evicted_nor_removed(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines", limit_bytes=25_000)
    running = store.add(key(1), writing(b"x" * 10_000))
    deployed(tmp_path, running)
    used(store, running, 1000)
    other = store.add(key(2), writing(b"x" * 10_000))
    used(store, other, 10)
    third = store.add(key(3), writing(b"x" * 10_000))
    assert {stored.id for stored in store.list()} == {running.id, third.id}
    with pytest.raises(EngineError, match="in use"):
        store.remove(running.id)


def test_a_pointer_that_cannot_be_read_keeps_everything(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines", limit_bytes=25_000)
    first = store.add(key(1), writing(b"x" * 10_000))
    deployed(tmp_path, first)
    (tmp_path / "deployments" / "current.json").write_text("{")
    for number in (2, 3, 4):
        store.add(key(number), writing(b"x" * 10_000))
    assert len(store.list()) == 4


@pytest.mark.parametrize("name", ["", ".", "..", "../engines", ".new-x", "a/b", "timing", "none"])
def test_ids_that_are_no_engines_are_refused(name: str, tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    store.add(KEY, writing())
    for ask in (store.get, store.remove):
        with pytest.raises(EngineError, match="no such engine"):
            ask(name)
