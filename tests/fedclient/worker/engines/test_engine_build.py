"""Builds in their child process: found, cancelled, killed, out of room, told apart by key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import onnx
import pytest
from engine_parts import exported, phases

from fedclient.worker.engines import BuildEvent, EngineStore, StoredEngine, build_engine
from fedspect.errors import DiskFullError, EngineError, InterruptedRunError

PARTS = ("backbone", "head", "whole")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes modules that a builder's process can import: a TensorRT of some version, and its CUDA runtime."""
    folder = tmp_path / "modules"
    (folder / "cuda").mkdir(parents=True)
    (folder / "cuda" / "__init__.py").write_text("")
    (folder / "cuda" / "cudart.py").write_text("from fake_cudart import *\n")
    monkeypatch.syspath_prepend(str(folder))

    def make(version: str, *faults: str) -> str:
        name = "fake_tensorrt_" + "_".join([*version.split("."), *faults])
        lines = [
            "import sys, fake_tensorrt",
            f"sys.modules[__name__] = fake_tensorrt.make({version!r}, {faults!r}, __name__)",
        ]
        (folder / f"{name}.py").write_text("\n".join(lines) + "\n")
        return name

    return make


def cached_layers(store: EngineStore) -> int:
    return sum(path.read_bytes().count(b": 1") for path in store.timing.glob("*.cache"))


def builders_of(parent: int) -> List[int]:
    """Builders that a process started and that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            owner = int(path.read_text().rpartition(")")[2].split()[1])
            if owner == parent and b"engines.builder" in (path.parent / "cmdline").read_bytes():
                found.append(int(path.parent.name))
        except (OSError, ValueError):
            continue
    return found


def test_a_new_head_builds_a_head_and_no_backbone(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    first = {part: build_engine(exported(tmp_path / "v1") / f"{part}.onnx", store) for part in PARTS}
    events: Dict[str, List[BuildEvent]] = {part: [] for part in PARTS}
    exported(tmp_path / "v2", version="v2", shift=1.0)
    second = {
        part: build_engine(tmp_path / "v2" / f"{part}.onnx", store, progress=events[part].append)
        for part in PARTS
    }
    assert second["backbone"].key == first["backbone"].key
    assert second["backbone"].sidecar == first["backbone"].sidecar
    assert second["head"].key != first["head"].key and second["whole"].key != first["whole"].key
    built = {part: "checking" in phases(told) for part, told in events.items()}
    assert built == {"backbone": False, "head": True, "whole": True}
    assert sorted(stored.sidecar["part"] for stored in store.list()) == [
        "backbone", "head", "head", "whole", "whole"
    ]  # fmt: skip
    assert second["head"].sidecar["version"] == "v2" and first["head"].sidecar["version"] == "v1"


def test_progress_tells_phases_and_shares(tmp_path: Path, stand_in: Any) -> None:
    store, events = EngineStore(tmp_path / "engines"), []  # type: EngineStore, List[BuildEvent]
    graphs = exported(tmp_path / "v1", pixels="float32")
    name = stand_in("10.16.1")
    stored = build_engine(
        graphs / "head.onnx", store, kind="tensorrt", precision="float16", progress=events.append,
        tensorrt_module=name,
    )  # fmt: skip
    assert phases(events) == ["starting", "reading", "parsing", "building", "checking", "kept"]
    shares = [event.fraction for event in events if event.phase == "building" and event.fraction is not None]
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) > 10
    assert stored.sidecar["tensorrt_module"] == name and stored.key.runtime_version == f"10.16.1-{name}"


def test_where_no_progress_is_told_it_is_reckoned_from_the_last_build(tmp_path: Path, stand_in: Any) -> None:
    store, events = EngineStore(tmp_path / "engines"), []  # type: EngineStore, List[BuildEvent]
    settings = {"kind": "tensorrt", "tensorrt_module": stand_in("8.5.2", "slow")}
    build_engine(exported(tmp_path / "v1", pixels="float32") / "head.onnx", store, **settings)
    shutil.rmtree(store.timing)
    exported(tmp_path / "v2", version="v2", shift=1.0, pixels="float32")
    build_engine(tmp_path / "v2" / "head.onnx", store, progress=events.append, **settings)
    shares = [event.fraction for event in events if event.phase == "building"]
    assert len(shares) >= 2 and shares[-1] is not None and 0 < shares[-1] <= 0.99
    assert events[-1].seconds > 1


@pytest.mark.parametrize("version", ["8.5.2", "11.4.0"])
def test_cancel_ends_the_child_and_what_was_measured_is_kept_where_the_version_can_stop(
    version: str, tmp_path: Path, stand_in: Any
) -> None:
    store, cancel = EngineStore(tmp_path / "engines"), threading.Event()
    graphs = exported(tmp_path / "v1", pixels="float32")
    begun: List[float] = []

    def watch(event: BuildEvent) -> None:
        if event.phase == "building" and not begun:
            begun.append(time.monotonic())
            threading.Timer(0.5, cancel.set).start()

    with pytest.raises(InterruptedRunError, match="cancelled"):
        build_engine(
            graphs / "whole.onnx", store, kind="tensorrt", progress=watch, cancel=cancel,
            tensorrt_module=stand_in(version, "slow"),
        )  # fmt: skip
    assert builders_of(os.getpid()) == [] and store.list() == []
    assert (cached_layers(store) > 0) == (version == "11.4.0")
    again = build_engine(graphs / "whole.onnx", store, kind="tensorrt", tensorrt_module=stand_in(version))
    assert again.sidecar["part"] == "whole" and len(store.list()) == 1


def test_a_builder_that_is_killed_is_told_and_the_next_build_goes_on(tmp_path: Path, stand_in: Any) -> None:
    store = EngineStore(tmp_path / "engines")
    graphs = exported(tmp_path / "v1", pixels="float32")
    with pytest.raises(EngineError, match=r"builder of an engine died.*SIGKILL.*memory"):
        build_engine(
            graphs / "head.onnx", store, kind="tensorrt", tensorrt_module=stand_in("8.5.2", "killed")
        )
    assert store.list() == []
    build_engine(graphs / "head.onnx", store, kind="tensorrt", tensorrt_module=stand_in("8.5.2"))
    assert len(store.list()) == 1
    assert not [path for path in store.folder.iterdir() if path.name.startswith(".new")]


CALLER = """
import sys, threading
from pathlib import Path
from fedclient.worker.engines import EngineStore, build_engine
build_engine(Path(sys.argv[1]), EngineStore(Path(sys.argv[2])), kind="tensorrt", tensorrt_module=sys.argv[3],
             progress=lambda event: print(event.phase, flush=True))
"""


def test_a_build_does_not_outlive_its_caller(tmp_path: Path, stand_in: Any) -> None:
    graphs, store = exported(tmp_path / "v1", pixels="float32"), EngineStore(tmp_path / "engines")
    arguments = [str(graphs / "whole.onnx"), str(store.folder), stand_in("8.5.2", "slow")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert caller.stdout is not None
    while caller.stdout.readline().strip() != "building":
        assert caller.poll() is None
    (pid,) = builders_of(caller.pid)
    builder = Path("/proc") / str(pid)
    assert (builder / "oom_score_adj").read_text().strip() == "1000"
    assert int((builder / "stat").read_text().rpartition(")")[2].split()[16]) == 19  # nice
    caller.kill()
    caller.wait()
    caller.stdout.close()
    deadline = time.monotonic() + 30
    while builder.exists() and "Z" not in (builder / "stat").read_text().rpartition(")")[2].split()[0]:
        assert time.monotonic() < deadline, "the builder lives on"
        time.sleep(0.05)
    build_engine(graphs / "head.onnx", store)
    assert not list(store.folder.glob(".new-*"))


def test_builds_of_one_store_wait_for_each_other(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    head = exported(tmp_path / "v1") / "head.onnx"
    events: List[BuildEvent] = []
    results: List[StoredEngine] = []
    with store.building():
        thread = threading.Thread(
            target=lambda: results.append(build_engine(head, store, progress=events.append))
        )
        thread.start()
        deadline = time.monotonic() + 60
        while "waiting" not in phases(events):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert store.list() == []
    thread.join()
    assert len(results) == 1 and phases(events)[-1] == "kept"


@pytest.mark.parametrize("damage", ["empty", "junk", "cut", "weight", "foreign", "absent", "outside"])
def test_an_onnx_that_is_not_what_was_written_is_refused(damage: str, tmp_path: Path) -> None:
    path = exported(tmp_path) / "head.onnx"
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage in ("foreign", "outside"):
        model = onnx.ModelProto.FromString(content)
        if damage == "foreign":
            del model.metadata_props[:]
        else:
            model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
        path.write_bytes(model.SerializeToString())
    elif damage == "weight":
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
    else:
        path.write_bytes({"empty": b"", "junk": b"ab", "cut": content[: len(content) // 2]}[damage])
    store = EngineStore(tmp_path / "engines")
    with pytest.raises(EngineError, match=r"an ONNX file cannot be used.*head\.onnx") as caught:
        build_engine(path, store)
    assert caught.value.remedy and store.list() == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "openvino"}, "no such kind"),
        ({"precision": "int8"}, "no such precision"),
        ({"precision": "float16"}, "ONNX Runtime on the CPU has no such precision"),
        ({"max_batch": 0}, "no engine for such batches"),
        ({"kind": "tensorrt", "tensorrt_module": "not_installed_anywhere"}, "TensorRT is not installed"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(
    settings: Dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=words):
        build_engine(exported(tmp_path) / "head.onnx", EngineStore(tmp_path / "engines"), **settings)


def small_disk(folder: Path, megabytes: int) -> Optional[str]:
    """Mount a small file system there; says why not where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return None if done.returncode == 0 else done.stderr.strip()


@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount here")
def test_a_disk_that_fills_during_a_build_is_said(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    why = small_disk(disk, 8)
    if why is not None:
        pytest.skip(f"a small file system cannot be mounted: {why}")
    try:
        store = EngineStore(disk / "engines")
        graphs = exported(tmp_path / "v1")
        build_engine(graphs / "backbone.onnx", store)
        (disk / "other").write_bytes(b"x" * (4 << 20))
        with pytest.raises(DiskFullError, match="no space left"):
            build_engine(graphs / "head.onnx", store)
        assert [stored.sidecar["part"] for stored in store.list()] == ["backbone"]
        (disk / "other").unlink()
        build_engine(graphs / "head.onnx", store)
        assert len(store.list()) == 2
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_looking_at_engines_imports_no_torch_and_no_runtime() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import sys, fedclient.worker.engines.{}; print([n for n in {} if n in sys.modules])"
    for module, unwanted in (
        ("model", ["torch", "onnx", "onnxruntime", "tensorrt", "cuda"]),
        ("builder", ["torch", "onnxruntime", "tensorrt", "cuda"]),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(module, unwanted)],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
        assert done.stdout.strip() == "[]", module
