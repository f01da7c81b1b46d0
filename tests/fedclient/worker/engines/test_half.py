from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from engine_parts import PREPARED, distance, expected, exported, lively, pictures
from onnx import TensorProto, numpy_helper

from deploy_networks import answer
from fedclient.worker.deploy import CPU, form_named
from fedclient.worker.engines.half import to_half
from fedspect.errors import EngineError


@pytest.mark.parametrize("pixels", ["uint8", "float32"])  # in the forms "cpu" (with Resize) and "tensorrt"
def test_a_graph_in_half_precision_answers_nearly_the_same(pixels: str, tmp_path: Path) -> None:
    assert form_named("cpu") is CPU and CPU.excitation == "resize"
    folder = exported(tmp_path, pixels=pixels)
    raw = pictures(PREPARED)
    wanted = expected(lively(), PREPARED, raw)
    halves = {
        part: to_half(onnx.load(str(folder / f"{part}.onnx"))) for part in ("whole", "backbone", "head")
    }
    given = raw if pixels == "uint8" else raw.astype(np.float32)
    in_two = answer(halves["head"], answer(halves["backbone"], given))
    for seen in (answer(halves["whole"], given), in_two):
        assert seen.dtype == np.float32
        assert 0 < distance(seen, wanted) < 2e-2


def test_edges_keep_their_types_and_weights_take_half_the_room(tmp_path: Path) -> None:
    model = onnx.load(str(exported(tmp_path) / "whole.onnx"))
    half = to_half(model)
    for before, after in zip(
        (*model.graph.input, *model.graph.output), (*half.graph.input, *half.graph.output)
    ):
        assert before == after
    assert half.ByteSize() < 0.6 * model.ByteSize()
    assert model == onnx.load(str(tmp_path / "whole.onnx"))


def test_a_weight_beyond_float16_is_named(tmp_path: Path) -> None:
    model = onnx.load(str(exported(tmp_path) / "head.onnx"))
    tensor = next(each for each in model.graph.initializer if each.data_type == TensorProto.FLOAT)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = 1e6
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(EngineError, match=r"too large for float16.*1e\+06"):
        to_half(model)
