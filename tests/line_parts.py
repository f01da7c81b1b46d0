"""A plant's home whose line judges brightness: tiny engines whose answers can be reckoned by hand."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fedclient.worker.deployments import Deployment
from fedclient.worker.deployments.record import deployment_id
from fedclient.worker.engines import build_engine
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.settings import LineSettings, write_settings
from fedclient.worker.onnx_metadata import UNHASHED, content_hash
from fedspect.data.preprocess import Preprocessing

CLASSES = ("sound", "dark", "bright")
SIDE = 16
BASE_HASH = "ab" * 32
PREPARED = Preprocessing(SIDE, 1, (0.5,), (0.25,))
STEEPNESS = {1: 0.2, 2: 0.4, 3: 0.8}
GOOD = 8.0


def probabilities(means: np.ndarray, number: int) -> np.ndarray:
    """What version ``number`` answers for pictures of these mean brightnesses (N): (N, 3)."""
    slope = STEEPNESS[number] * (np.asarray(means, dtype=np.float64) - 128)
    logits = np.stack([np.full_like(slope, GOOD), -slope, slope], axis=1)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def grey(brightness: int, side: int = SIDE) -> np.ndarray:
    """uint8 (side, side) of one brightness, its left a little darker than its right: a constant frame is no surface."""
    halves = np.where(np.arange(side) < side // 2, -4, 4)  # their mean stays exact when resized
    return np.clip(np.full((side, side), brightness) + halves, 0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def make_home(folder: Path, **verdicts: Any) -> LineHome:
    """A home with three versions' engines; none is current yet. Class "sound" is good unless told otherwise."""
    home = LineHome(folder)
    for number in STEEPNESS:
        onnx_folder = folder / "onnx" / str(number)
        onnx_folder.mkdir(parents=True)
        engines = {}
        for part in ("backbone", "head"):
            path = onnx_folder / f"{part}.onnx"
            path.write_bytes(_graph(part, number).SerializeToString())
            engines[part] = build_engine(path, home.store).id
        version = _version(number)
        home.deployments.add(
            Deployment(
                id=deployment_id(number, version, engines),
                version=version,
                number=number,
                classes=CLASSES,
                base_hash=BASE_HASH,
                engines=engines,
            )
        )
    settings = {"verdicts": {"good_classes": ["sound"], **verdicts}}
    write_settings(home.line, LineSettings.model_validate(settings))
    return home


def copy_home(home: LineHome, folder: Path) -> LineHome:
    """The same home at another place, for a test that changes it."""
    shutil.copytree(str(home.folder), str(folder))
    return LineHome(folder)


def activate(home: LineHome, number: int) -> Deployment:
    """Let the line run a version."""
    chosen = next(each for each in home.deployments.list() if each.number == number)
    return home.deployments.activate(chosen.id, who="a test", why="it says so")


def _version(number: int) -> str:
    return f"{number:02d}" * 32


def _graph(part: str, number: int) -> onnx.ModelProto:
    if part == "backbone":
        nodes = [
            helper.make_node("Cast", ["pixels"], ["values"], name="values", to=TensorProto.FLOAT),
            helper.make_node(
                "AveragePool", ["values"], ["features"], name="pool", kernel_shape=[8, 8], strides=[8, 8]
            ),
        ]
        source = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 1, SIDE, SIDE])
        result = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 1, 2, 2])
        constants: List[onnx.TensorProto] = []
    else:
        slope = STEEPNESS[number]
        weight = np.array([[0.0] * 4, [-slope / 4] * 4, [slope / 4] * 4], dtype=np.float32)
        bias = np.array([GOOD, 128 * slope, -128 * slope], dtype=np.float32)
        nodes = [
            helper.make_node("Flatten", ["features"], ["flat"], name="flat"),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], name="classifier", transB=1),
        ]
        source = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 1, 2, 2])
        result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
        constants = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, part, [source], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts: Dict[str, str] = {
        "format": "1",
        "part": part,
        "form": "test",
        "architecture": "brightness",
        "cut_level": "1",
        "input_size": str(SIDE),
        "channels": "1",
        "pixels": "uint8",
        "normalisation": json.dumps({"mean": [0.5], "std": [0.25]}),
        "base_hash": BASE_HASH,
    }
    if part == "head":
        facts["classes"] = json.dumps(list(CLASSES))
    assert not set(facts) & set(UNHASHED)
    facts["content_hash"] = content_hash(facts, model)
    facts["version"] = _version(number)
    helper.set_model_props(model, {f"fedspect.{key}": value for key, value in facts.items()})
    return model


# -- processes -------------------------------------------------------------------------------------------------


def command(*arguments: str) -> List[str]:
    return [sys.executable, "-m", "fedclient.worker.line", *arguments]


def environment(home: LineHome) -> Dict[str, str]:
    path = os.pathsep.join(each for each in sys.path if each)
    return {**os.environ, "PYTHONPATH": path, "FEDSPECT_HOME": str(home.folder), "COLUMNS": "160"}


def run(home: LineHome, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """One of the line's commands to its end."""
    return subprocess.run(
        command(*arguments),
        env=environment(home),
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


class Serving:
    """A serving process of its own, on ports that the system picked."""

    def __init__(self, home: LineHome, *arguments: str, address: str = "127.0.0.1:0") -> None:
        self.home = home
        (home.line / "serve.json").unlink(missing_ok=True)
        self.log = home.folder / "serve.log"
        with self.log.open("ab") as log:
            given = ("serve", "--address", address, "--http", "127.0.0.1:0", *arguments)
            self.process = subprocess.Popen(command(*given), env=environment(home), stdout=log, stderr=log)
        self.addresses: Dict[str, Any] = self._wait()

    def _wait(self) -> Dict[str, Any]:
        path = self.home.line / "serve.json"
        deadline = time.monotonic() + 60
        while not path.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.log.read_text())
            time.sleep(0.02)
        content = json.loads(path.read_text())
        assert isinstance(content, dict)
        return content

    @property
    def address(self) -> str:
        return str(self.addresses["address"])

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address)

    def end(self, timeout: float = 30) -> int:
        self.process.terminate()
        return self.process.wait(timeout)

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def infer_request(
    pictures: Optional[Sequence[bytes]] = None, pixels: Optional[np.ndarray] = None, **fields: Any
) -> Any:
    """A request as our own client writes it, without Triton's client."""
    from fedclient.worker.line.serving.protocol_messages import message

    request = message("ModelInferRequest")(model_name="surface", **fields)
    if pictures is not None:
        request.inputs.add(name="picture", datatype="BYTES", shape=[len(pictures)])
        packed = b"".join(len(each).to_bytes(4, "little") + each for each in pictures)
        request.raw_input_contents.append(packed)
    if pixels is not None:
        request.inputs.add(name="pixels", datatype="UINT8", shape=list(pixels.shape))
        request.raw_input_contents.append(np.ascontiguousarray(pixels).tobytes())
    return request
