"""The adapter against each recorded version of TensorRT: the names that it has, and no others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import fake_cudart
import fake_tensorrt
import numpy as np
import onnx
import pytest
import torch
from engine_parts import PREPARED, distance, expected, exported, lively, pictures
from record_tensorrt_names import recorded

from fedclient.worker.engines import EngineStore, StoredEngine
from fedclient.worker.engines.device_memory import CudaPythonMemory, DeviceMemory, TorchMemory, find_memory
from fedclient.worker.engines.recipe import BuildOrder, common_facts
from fedclient.worker.engines.tensorrt_build import TensorRTRecipe, workspace_of
from fedclient.worker.engines.tensorrt_engine import TensorRTEngine
from fedclient.worker.onnx_metadata import read_onnx
from fedspect.errors import EngineError, EngineMemoryError, InterruptedRunError

OLD, NEW = "8.5.2", "11.4.0"
WITHOUT_FLAG = ("11.4.0", "rtx-1.7.1")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("onnx"), pixels="float32")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> CudaPythonMemory:
    monkeypatch.setattr(fake_cudart, "HELD", {})
    return CudaPythonMemory(fake_cudart)


def built(
    graphs: Path,
    home: Path,
    tensorrt: Any,
    memory: DeviceMemory,
    *,
    precision: str = "float32",
    part: str = "whole",
    told: Optional[List[Tuple[str, Optional[float]]]] = None,
) -> StoredEngine:
    """Build as the builder's process does, with this module and this memory."""
    store = EngineStore(home / "engines")
    order = BuildOrder(graphs / f"{part}.onnx", "tensorrt", precision, max_batch=4, timing=store.timing)
    recipe = TensorRTRecipe(order, tensorrt, memory)
    source = read_onnx(order.onnx_path)
    events: List[Tuple[str, Optional[float]]] = [] if told is None else told

    def tell(phase: str, fraction: Optional[float]) -> None:
        events.append((phase, fraction))

    return store.add(
        recipe.key(source), lambda file: {**common_facts(source), **recipe.build(source, file, tell)}
    )


def opened(
    stored: StoredEngine, tensorrt: Any, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch
) -> TensorRTEngine:
    from fedclient.worker.engines import tensorrt_engine
    from fedclient.worker.engines.interface import TensorFacts

    monkeypatch.setattr(tensorrt_engine, "find_tensorrt", lambda name: tensorrt)
    return TensorRTEngine.open(
        stored,
        inputs=TensorFacts.from_dict(stored.sidecar["inputs"]),
        outputs=TensorFacts.from_dict(stored.sidecar["outputs"]),
        metadata=stored.sidecar["metadata"],
        memory=memory,
    )


def plan_of(stored: StoredEngine) -> Tuple[Dict[str, Any], onnx.ModelProto]:
    head, _, model = stored.file.read_bytes().partition(b"\n")
    return json.loads(head[len(fake_tensorrt.MAGIC) :]), onnx.ModelProto.FromString(model)


def test_the_recorded_names_are_those_of_the_reference() -> None:
    reference = os.environ.get("FEDSPECT_REFERENCE")
    if not reference:
        pytest.skip("the reference is not here")
    assert recorded(Path(reference)) == fake_tensorrt.NAMES


def test_the_stand_in_has_no_other_names() -> None:
    old, new = fake_tensorrt.make(OLD), fake_tensorrt.make(NEW)
    config = old.Builder(None).create_builder_config()
    with pytest.raises(AttributeError):
        config.progress_monitor = None
    assert hasattr(old.BuilderFlag, "FP16") and not hasattr(new.BuilderFlag, "FP16")
    assert not hasattr(old, "IProgressMonitor") and hasattr(new, "IProgressMonitor")


@pytest.mark.parametrize("version", fake_tensorrt.VERSIONS)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_every_version_builds_and_answers_as_the_network(
    version: str, precision: str, graphs: Path, tmp_path: Path, memory: DeviceMemory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tensorrt = fake_tensorrt.make(version)
    told: List[Tuple[str, Optional[float]]] = []
    stored = built(graphs, tmp_path, tensorrt, memory, precision=precision, told=told)
    header, model = plan_of(stored)
    halves = {tensor.data_type for tensor in model.graph.initializer} & {onnx.TensorProto.FLOAT16}
    assert ("FP16" in header["flags"]) == (precision == "float16" and version not in WITHOUT_FLAG)
    assert bool(halves) == (precision == "float16" and version in WITHOUT_FLAG)
    assert ("TF32" in header["flags"]) == (precision == "float16")
    assert 0 < header["pools"]["WORKSPACE"] <= fake_cudart.LIMIT // 2
    shares = [share for phase, share in told if phase == "building"]
    assert (
        (shares[-1] == 1.0 and shares == sorted(shares))
        if hasattr(tensorrt, "IProgressMonitor")
        else (shares == [None])
    )
    assert stored.key.device == "Xavier sm72" and stored.key.shapes == "1-4x1x64x64"
    pixels = pictures(PREPARED, 9)  # more than the largest batch, in pieces
    with opened(stored, tensorrt, memory, monkeypatch) as engine:
        assert (engine.kind, engine.precision) == ("tensorrt", precision)
        assert engine.memory_bytes and engine.memory_bytes > 4096
        seen = engine.run(pixels.astype(np.float32))
    assert distance(seen, expected(lively(), PREPARED, pixels)) < (1e-4 if precision == "float32" else 2e-2)
    assert not fake_cudart.HELD
    with pytest.raises(EngineError, match="closed"):
        engine.run(pixels.astype(np.float32))


@pytest.mark.parametrize("part", ["backbone", "head"])
def test_parts_are_built_too(part: str, graphs: Path, tmp_path: Path, memory: DeviceMemory) -> None:
    stored = built(graphs, tmp_path, fake_tensorrt.make(OLD), memory, part=part, precision="float16")
    assert stored.sidecar["part"] == part and stored.sidecar["difference"] < 1e-2


@pytest.mark.parametrize("version", [OLD, NEW])
def test_pixels_may_be_bytes(
    version: str, tmp_path: Path, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt = fake_tensorrt.make(version)
    stored = built(exported(tmp_path / "onnx"), tmp_path, tensorrt, memory, precision="float16")
    pixels = pictures(PREPARED)
    with opened(stored, tensorrt, memory, monkeypatch) as engine:
        assert engine.inputs.dtype == "uint8"
        assert distance(engine.run(pixels), expected(lively(), PREPARED, pixels)) < 2e-2


def test_buffers_may_come_from_torch(graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt, memory = fake_tensorrt.make(NEW), TorchMemory(torch, "cpu")
    stored = built(graphs, tmp_path, tensorrt, memory)
    pixels = pictures(PREPARED)
    with opened(stored, tensorrt, memory, monkeypatch) as engine:
        seen = engine.run(pixels.astype(np.float32))
    assert distance(seen, expected(lively(), PREPARED, pixels)) < 1e-4


def test_without_a_gpu_both_reasons_are_told() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EngineError, match=r"no GPU.*torch"):
        find_memory()


def test_the_timing_cache_of_a_device_shortens_the_next_build(
    graphs: Path, tmp_path: Path, memory: DeviceMemory
) -> None:
    first, second, other = fake_tensorrt.make(OLD), fake_tensorrt.make(OLD), fake_tensorrt.make("8.6.1")
    built(graphs, tmp_path, first, memory)
    built(graphs, tmp_path, second, memory)
    built(graphs, tmp_path, other, memory)
    assert first.measured and not second.measured and len(other.measured) == len(first.measured)
    caches = sorted(path.name for path in (tmp_path / "engines" / "timing").iterdir())
    assert caches == ["8.5.2-Xavier-sm72.cache", "8.6.1-Xavier-sm72.cache"]


def test_a_foreign_timing_cache_costs_only_time(graphs: Path, tmp_path: Path, memory: DeviceMemory) -> None:
    built(graphs, tmp_path, fake_tensorrt.make("8.6.1"), memory)
    timing = tmp_path / "engines" / "timing"
    (timing / "8.6.1-Xavier-sm72.cache").rename(timing / "8.5.2-Xavier-sm72.cache")
    tensorrt = fake_tensorrt.make(OLD)
    built(graphs, tmp_path, tensorrt, memory)
    assert tensorrt.measured


@pytest.mark.parametrize("version", [OLD, "10.16.1", NEW])
@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("silent parser", EngineError, "lost a part of the ONNX without a word"),
        ("lost layer", EngineError, "lost a part of the ONNX without a word"),
        ("parser", EngineError, "node 3: no importer for operator HardSwish"),
        ("no builder", EngineError, "gives no builder"),
        ("build", EngineError, "Could not find any implementation"),
        ("build memory", EngineMemoryError, "out of memory"),
        ("context memory", EngineMemoryError, "out of memory"),
        ("execute", EngineError, "misaligned address"),
        ("wrong answers", EngineError, "answers otherwise than ONNX Runtime"),
    ],
)
def test_a_build_that_goes_wrong_says_why_and_keeps_nothing(
    version: str, fault: str, kind: type, words: str, graphs: Path, tmp_path: Path, memory: DeviceMemory
) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        built(graphs, tmp_path, fake_tensorrt.make(version, [fault]), memory)
    assert type(caught.value) is kind and caught.value.remedy
    assert EngineStore(tmp_path / "engines").list() == []
    assert not fake_cudart.HELD


def test_a_gpu_without_room_for_buffers_says_so(
    graphs: Path, tmp_path: Path, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt = fake_tensorrt.make(OLD)
    stored = built(graphs, tmp_path, tensorrt, memory)
    monkeypatch.setattr(fake_cudart, "LIMIT", 4 * 64 * 64 * 4)  # the source fits, the result does not
    with pytest.raises(EngineMemoryError, match="too little memory"):
        opened(stored, tensorrt, memory, monkeypatch)
    assert not fake_cudart.HELD


def test_a_build_is_not_begun_where_hardly_anything_is_free() -> None:
    assert workspace_of(8 << 30) == 1 << 30 and workspace_of(1 << 30) == 1 << 29
    with pytest.raises(EngineMemoryError, match="100 MB free"):
        workspace_of(100 << 20)


def test_an_engine_of_another_version_is_named_before_it_is_loaded(
    graphs: Path, tmp_path: Path, memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = built(graphs, tmp_path, fake_tensorrt.make(OLD), memory)
    with pytest.raises(EngineError, match=r"another TensorRT.*8\.5\.2.*accepted: 10\.0\.1.*engines build"):
        opened(stored, fake_tensorrt.make("10.0.1"), memory, monkeypatch)


def test_a_plan_that_tensorrt_refuses_comes_with_its_words(
    graphs: Path, tmp_path: Path, memory: DeviceMemory
) -> None:
    stored = built(graphs, tmp_path, fake_tensorrt.make(OLD), memory)
    facts = {"metadata": {}, "precision": "float32", "memory": memory, "tensorrt": fake_tensorrt.make(NEW)}
    with pytest.raises(EngineError, match=r"does not load a plan.*not compatible with this version"):
        TensorRTEngine(stored.file.read_bytes(), inputs=None, outputs=None, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["10.0.1", NEW])
def test_a_stopped_build_keeps_what_it_measured(
    version: str, graphs: Path, tmp_path: Path, memory: DeviceMemory
) -> None:
    class Stopper(List[Any]):
        def append(self, event: Any) -> None:
            if (event[1] or 0) > 0.2:
                raise InterruptedRunError("the build was cancelled")

    tensorrt = fake_tensorrt.make(version)
    with pytest.raises(InterruptedRunError):
        built(graphs, tmp_path, tensorrt, memory, told=Stopper())
    again = fake_tensorrt.make(version)
    built(graphs, tmp_path, again, memory)
    total = len(onnx.load(str(graphs / "whole.onnx")).graph.node)
    assert 0 < len(tensorrt.measured) < total and len(again.measured) == total - len(tensorrt.measured)
