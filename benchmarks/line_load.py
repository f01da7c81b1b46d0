"""How the serving line bears load: model A at 224 pixels behind ``fedclient serve``, asked over gRPC.

Clients are threads of this process on connections of their own, each with one request of one PNG under way; the
line has one thread for its engine. Before each number of clients the engine alone is measured, for on a busy machine
only ratios carry over, and those only roughly::

    python benchmarks/line_load.py --seconds 10
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from fedclient.worker.deploy import DeployFacts, deploy_graphs, save_graphs
from fedclient.worker.deployments import Deployment
from fedclient.worker.deployments.record import deployment_id
from fedclient.worker.engines import build_engine
from fedclient.worker.line.home import LineHome
from fedclient.worker.line.serving.protocol_messages import message
from fedspect.model.base import default_base

METHOD = "/inference.GRPCInferenceService/ModelInfer"


def make_home(folder: Path) -> LineHome:
    """A plant's home whose line runs the default base model."""
    base = default_base()
    home = LineHome(folder)
    facts = DeployFacts("00" * 32, base.card.classes, base.preprocessing, base.content_hash)
    network = base.network(base.card.classes, seed=0).eval()
    save_graphs(folder / "onnx", deploy_graphs(network, facts, freeze_levels=base.card.default_freeze_levels))
    engines = {
        part: build_engine(folder / "onnx" / f"{part}.onnx", home.store).id for part in ("backbone", "head")
    }
    deployment = Deployment(
        id=deployment_id(1, facts.version, engines),
        version=facts.version,
        number=1,
        classes=tuple(base.card.classes),
        base_hash=base.content_hash,
        engines=engines,
    )
    home.deployments.add(deployment)
    home.deployments.activate(deployment.id, who="benchmark", why="load")
    return home


def request_of(size: int) -> bytes:
    """One request with one grey PNG."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(96, 160, (size, size), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="PNG")
    content = buffer.getvalue()
    request = message("ModelInferRequest")(model_name="surface")
    request.inputs.add(name="picture", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(len(content).to_bytes(4, "little") + content)
    return bytes(request.SerializeToString())


def ask(address: str, request: bytes, seconds: float) -> list[float]:
    """Seconds of each request of one client."""
    found: list[float] = []
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(METHOD)
        call(request, timeout=60)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            begun = time.perf_counter()
            call(request, timeout=60)
            found.append(time.perf_counter() - begun)
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder) / "home")
        environment = {**os.environ, "FEDSPECT_HOME": str(home.folder)}
        command = [sys.executable, "-m", "fedclient.worker.line"]
        options = ["--seconds", str(given.seconds), "--json"]
        alone = json.loads(subprocess.check_output([*command, "bench", *options], env=environment))[
            "engines"
        ][0]
        serving = subprocess.Popen(
            [*command, "serve", "--address", "127.0.0.1:0", "--no-http"],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            said = home.line / "serve.json"
            while not said.exists():
                time.sleep(0.05)
            address = json.loads(said.read_text())["address"]
            print(
                f"engine alone: {alone['engine_p50_ms']:.2f} ms; with decoding p50 {alone['p50_ms']:.2f} ms"
            )
            print("clients  p50 ms  p95 ms  p99 ms  pictures/s  against the engine alone")
            request = request_of(224)
            for clients in given.clients:
                measured = subprocess.check_output([*command, "bench", *options], env=environment)
                alone = float(json.loads(measured)["engines"][0]["engine_p50_ms"])
                with ThreadPoolExecutor(clients) as pool:
                    jobs = [pool.submit(ask, address, request, given.seconds) for _ in range(clients)]
                    times = np.concatenate([job.result() for job in jobs]) * 1000
                p50, p95, p99 = np.percentile(times, (50, 95, 99))
                rate = len(times) / given.seconds
                figures = f"{p50:6.2f}  {p95:6.2f}  {p99:6.2f}  {rate:10.1f}  {alone:19.2f}"
                print(f"{clients:7d}  {figures}  {rate * alone / 1000:15.2f}")
        finally:
            serving.terminate()
            serving.wait()


if __name__ == "__main__":
    main()
