"""Our graphs through a real parser and builder of TensorRT's family, which need no GPU; plans cannot run here."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Tuple

import pytest
from engine_parts import exported

from deploy_networks import facts, lively, preprocessing
from fedclient.worker.deploy import TENSORRT, deploy_graphs
from fedclient.worker.engines import EngineStore, available_kinds, build_engine
from fedclient.worker.engines.device_memory import find_memory
from fedclient.worker.engines.interface import TensorFacts
from fedclient.worker.engines.tensorrt_build import build_plan
from fedclient.worker.engines.tensorrt_engine import TensorRTEngine
from fedspect.errors import EngineError

tensorrt = pytest.importorskip("tensorrt_rtx_bindings")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CASES = [("cdnv2-a", 1, "float32"), ("cdnv2-a", 3, "float16")]
CASES += [
    pytest.param(architecture, 1, precision, marks=pytest.mark.slow)  # type: ignore[misc]
    for architecture in ("cdnv2-b", "cdnv2-c")
    for precision in ("float32", "float16")
]


def no_gpu() -> bool:
    try:
        find_memory()
    except EngineError:
        return True
    return False


@pytest.mark.parametrize(("architecture", "channels", "precision"), CASES)
def test_backbone_head_and_whole_parse_and_build(
    architecture: str, channels: int, precision: str, tmp_path: Path
) -> None:
    network = lively(architecture, channels=channels)
    given = facts(network, preprocessing(channels))
    for part, model in deploy_graphs(network, given, form=TENSORRT, pixels="float32").by_name().items():
        told: List[Tuple[str, Optional[float]]] = []
        plan = build_plan(
            tensorrt,
            model,
            precision=precision,
            max_batch=4,
            workspace=256 << 20,
            timing=tmp_path / "timing.cache",
            tell=lambda phase, share, told=told: told.append((phase, share)),  # type: ignore[misc]
        )
        convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
        assert plan.layers >= convolutions > 0, part
        assert len(plan.content) > 100_000
        assert told[-1][0] == "building" and told[-1][1] == pytest.approx(1, abs=0.2)


def test_pixels_may_be_bytes(tmp_path: Path) -> None:
    network = lively()
    graphs = deploy_graphs(network, facts(network, preprocessing()), form=TENSORRT, pixels="uint8")
    settings = {"precision": "float16", "max_batch": 1, "workspace": 256 << 20, "timing": None}
    plan = build_plan(tensorrt, graphs.whole, tell=lambda phase, share: None, **settings)  # type: ignore[arg-type]
    assert plan.layers > 100


@pytest.mark.skipif(not no_gpu(), reason="there is a GPU here")
def test_without_a_gpu_a_plan_is_refused_with_the_log_s_words() -> None:
    edge = TensorFacts("pixels", "float32", (None, 1, 64, 64))
    with pytest.raises(EngineError, match="does not load a plan"):
        TensorRTEngine(
            b"not a plan",
            tensorrt=tensorrt,
            memory=None,  # type: ignore[arg-type]
            inputs=edge,
            outputs=edge,
            metadata={},
            precision="float32",
        )


@pytest.mark.skipif(not no_gpu(), reason="there is a GPU here")
def test_without_a_gpu_a_build_says_so_and_the_kind_is_not_offered(tmp_path: Path) -> None:
    assert available_kinds() == ["onnxruntime"]
    store = EngineStore(tmp_path / "engines")
    with pytest.raises(EngineError, match="no GPU can be used here"):
        build_engine(exported(tmp_path) / "head.onnx", store, kind="tensorrt", precision="float16")
    assert store.list() == []
